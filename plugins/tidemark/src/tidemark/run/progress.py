"""Two ways to show a run: steps on a terminal, and lines for a log."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Protocol

from tidemark.run.events import BlockDone, Followed, LeftOut, NodeDone, Rows, StreamBegan, TextLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tidemark.run.display import Display
    from tidemark.run.events import Event
    from tidemark.run.outcome import BlockOutcome, RunOutcome

# how often a load reports its progress
_PROGRESS_S = 10
# how often a run that follows the log does, where each time is a new line
_FOLLOWED_S = 60
# a lower rate has a decimal
_WHOLE = 10
_NODE_LEVELS = {"ERROR": "error", "FAIL": "error", "WARN": "warning"}
# lines that Meltano, the SDK and dbt log at every run, and that nobody needs
_NOISE = re.compile(
    r"Using logging configuration|Environment |Meltano \d|Force option is enabled|Using systemdb|Reading state from|"
    r"Incremental state has been updated|Running catalog discovery|Run completed|METRIC|Skipping parse of env var|"
    r"Running job with name |Need help fixing this problem|(?:Extractor|Loader|Extractor and loader) failed$|"
    r"(?:tap|target)-\S+ v\d|Reader |Beginning sync of |Reading \S+$|"
    r"(?:\d\d:\d\d:\d\d +)?(?:\d+ of \d+ |Running with dbt|Registered adapter|Found \d|Concurrency: |Done\.|$)"
)
# Meltano logs this for every run that saves no state, whatever the reason
_STATELESS = "No active environment, proceeding with stateless run!"


class Listener(Protocol):
    """Receives each line of a run: its level (`debug`, `info`, `warning` or `error`) and its text."""

    def __call__(self, level: str, text: str) -> None:
        """Receive a line."""


class LineProgress:
    """Prints one line per event, for `tidemark run`; and how far runs that follow the log are, one after the other."""

    def __init__(self, say: Listener, show: Callable[[str], None] | None = None) -> None:
        """Begin.

        Args:
            say: gets each line.
            show: shows how far a run that follows is, in place of what it showed before; by default, `say` gets that
                once a minute.
        """
        self._say, self._show = say, show
        # changes of earlier runs, and all that were told last
        self._before = self._changes = self._shown_changes = 0
        self._shown_at: float | None = None
        self._began = time.monotonic()

    def follow(self, events: Iterator[Event], outcome: RunOutcome) -> None:
        """Print a line for each event."""
        said = time.monotonic()
        self._before, follows = self._changes, False
        # a tap or target warns of a stream's error when it happens, and ends with the first one
        warned: list[str] = []
        for event in events:
            block = outcome.block
            outcome.take(event)
            match event:
                case TextLine(text, plugin, level) if text.strip() and not text.startswith(_STATELESS):
                    again = level == "error" and any(each.endswith(f": {text.strip()}") for each in warned)
                    self._say("debug" if again or _NOISE.match(text.strip()) else level, f"{plugin}: {text}")
                    warned += [text.strip()] if level == "warning" and plugin.startswith(("tap-", "target-")) else []
                case NodeDone(index, total, status, what):
                    self._say(_NODE_LEVELS.get(status, "info"), f"dbt: {index} of {total} {status} {what}")
                case LeftOut(models):
                    for model in models:
                        self._say("warning", f"dbt: {model} is left out, because a source was not loaded")
                case BlockDone(success=False, error=error):
                    self._say("error", f"{block.title} failed{f': {error}' if error else ''}")
                case BlockDone():
                    self._say("info", f"{block.title} succeeded")
                case Followed():
                    follows = True
                    self._followed(event)
                case Rows() if not follows and time.monotonic() - said > _PROGRESS_S:
                    said = time.monotonic()
                    self._say("info", f"{outcome.progress(block)} so far")

    def _followed(self, event: Followed) -> None:
        now = time.monotonic()
        self._changes = self._before + event.changes
        if self._show is None and self._shown_at is not None and now - self._shown_at < _FOLLOWED_S:
            return
        seconds = now - (self._began if self._shown_at is None else self._shown_at)
        rate = (self._changes - self._shown_changes) / max(seconds, 1)
        self._shown_at, self._shown_changes = now, self._changes
        per_second = f"{rate:,.0f}" if rate >= _WHOLE or not rate else f"{rate:.1f}"
        text = f"{self._changes:,} changes {event.arrived}, {per_second}/s, {event.lag_s:,.1f} s behind the source"
        if self._show is None:
            self._say("info", text)
        else:
            self._show(text)


class StepProgress:
    """Shows one step per Meltano block, for `tidemark pipeline`."""

    def __init__(self, display: Display) -> None:
        """Show the steps on `display`."""
        self._display = display

    def follow(self, events: Iterator[Event], outcome: RunOutcome) -> None:
        """Show the blocks one by one, up to the first that fails."""
        for block in outcome.blocks:
            if all(each.success is not False for each in outcome.blocks):
                self._block(block, events, outcome)

    def _block(self, block: BlockOutcome, events: Iterator[Event], outcome: RunOutcome) -> None:
        nodes = total = 0
        with self._display.step(block.title) as step:
            for event in events:
                outcome.take(event)
                match event:
                    case NodeDone(total=total):
                        # count here: dbt numbers its nodes by their start, not by their end
                        nodes += 1
                        step.say(f"{nodes} of {total}")
                    case BlockDone():
                        break
                    case Rows() | StreamBegan():
                        step.say(outcome.progress(block))
            # None means that Meltano ended without reporting the block's end
            block.success = bool(block.success)
            step.failed = not block.success
            if step.failed and total:
                step.say(f"{block.passed + block.warned} of {total}")
            elif step.failed and outcome.streams_of(block):
                step.say(outcome.progress(block))
            elif not (step.failed or total or (block.tap and outcome.streams_of(block))):
                step.is_empty = True
                step.say("no stream is selected" if block.tap else "there is nothing to do")
