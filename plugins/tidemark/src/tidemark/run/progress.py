"""Two ways to show a run: steps on a terminal, and lines for a log."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Protocol

from tidemark.run.events import BlockDone, Line, NodeDone, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.run.display import Display
    from tidemark.run.events import Event
    from tidemark.run.outcome import BlockOutcome, RunOutcome

# how often a load says how far it is
_PROGRESS_S = 10
_NODE_LEVELS = {"ERROR": "error", "FAIL": "error", "WARN": "warning"}
# what Meltano, the SDK and dbt say at every run, and nobody needs to know
_NOISE = re.compile(
    r"Using logging configuration|Environment |Meltano \d|Force option is enabled|Using systemdb|Reading state from|"
    r"Incremental state has been updated|Running catalog discovery|Run completed|METRIC|Skipping parse of env var|"
    r"(?:tap|target)-\S+ v\d|Reader |Beginning sync of |Reading \S+$|"
    r"(?:\d\d:\d\d:\d\d +)?(?:\d+ of \d+ |Running with dbt|Registered adapter|Found \d|Concurrency: |Done\.|$)"
)
# what Meltano says of every run that saves no state, whatever the reason
_STATELESS = "No active environment, proceeding with stateless run!"


class Listener(Protocol):
    """Is given each line of a run: `debug`, `info`, `warning` or `error`, and the text."""

    def __call__(self, level: str, text: str) -> None:
        """Take a line."""


class LineProgress:
    """A line a fact, for `tidemark run`."""

    def __init__(self, say: Listener) -> None:
        """Give each line to `say`."""
        self._say = say

    def follow(self, events: Iterator[Event], outcome: RunOutcome) -> None:
        """Say all that happens."""
        said = time.monotonic()
        for event in events:
            block = outcome.block
            outcome.take(event)
            match event:
                case Line(text, plugin, level) if text.strip() and not text.startswith(_STATELESS):
                    self._say("debug" if _NOISE.match(text.strip()) else level, f"{plugin}: {text}")
                case NodeDone(index, total, status, what):
                    self._say(_NODE_LEVELS.get(status, "info"), f"dbt: {index} of {total} {status} {what}")
                case BlockDone(success=False, error=error):
                    self._say("error", f"{block.title} failed{f': {error}' if error else ''}")
                case BlockDone():
                    self._say("info", f"{block.title} ended well")
                case Rows() if time.monotonic() - said > _PROGRESS_S:
                    said = time.monotonic()
                    self._say("info", f"{outcome.read:,} rows of {len(outcome.rows)} streams so far")


class StepProgress:
    """A step a block, for `tidemark pipeline`."""

    def __init__(self, display: Display) -> None:
        """Show the steps on `display`."""
        self._display = display

    def follow(self, events: Iterator[Event], outcome: RunOutcome) -> None:
        """Show the blocks one by one, up to the first that fails."""
        for block in outcome.blocks:
            if all(each.success is not False for each in outcome.blocks):
                self._block(block, events, outcome)

    def _block(self, block: BlockOutcome, events: Iterator[Event], outcome: RunOutcome) -> None:
        nodes = 0
        with self._display.step(block.title) as step:
            for event in events:
                outcome.take(event)
                match event:
                    case NodeDone(total=total):
                        # counted here: dbt's own numbers come in the order its threads began, not ended
                        nodes += 1
                        step.say(f"{nodes} of {total}")
                    case BlockDone():
                        break
                    case Rows():
                        step.say(f"{outcome.read:,} rows of {len(outcome.rows)} streams")
            # not true yet: it ended without saying so
            block.success = bool(block.success)
            step.failed = not block.success
