"""What one run did, gathered from its events. Pure: no I/O here."""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from tidemark.run.events import BlockDone, Event, Line, NodeDone, Rows, StreamBegan, StreamMissing

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXCEPTION = re.compile(r"^[\w.]+(?:Error|Exception): ")
_DBT_ERROR = re.compile(r"^\w+ Error\b")
# how target and dbt say that another run keeps them out
_BUSY = ("Another run is loading ", "Another run is building ")
# how many lines before a failure are worth a reader's time
_TAIL = 12


@dataclass
class BlockOutcome:
    """One block of the run: its title, what dbt counts in it and how many, whether it ended well, what it said.

    Attributes:
        missing: streams that are selected or described, and that the source does not have.
    """

    title: str
    counted: str = "nodes"
    passed: int = 0
    warned: int = 0
    success: bool | None = None
    error: str | None = None
    failed_nodes: list[str] = field(default_factory=list)
    last_lines: deque[Line] = field(default_factory=lambda: deque(maxlen=_TAIL))
    errors: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Add an event that only matters within the block."""
        match event:
            case NodeDone(status="ERROR" | "FAIL", what=what):
                self.failed_nodes.append(what)
            case NodeDone(status="OK" | "PASS"):
                self.passed += 1
            case StreamMissing(stream):
                self.missing.append(stream)
            case NodeDone(status="WARN"):
                self.warned += 1
            case Line(text, _, level) if text.strip():
                self.last_lines.append(event)
                if level in {"error", "critical"}:
                    self.errors.append(text)


class RunOutcome:
    """Takes a run's events in order."""

    def __init__(self, blocks: Iterable[BlockOutcome]) -> None:
        """Expect these blocks, in this order."""
        self.blocks = list(blocks)
        self.rows: dict[str, Counter[str]] = {}
        self.incremental: set[str] = set()
        self._done = 0

    @property
    def read(self) -> int:
        """How many rows were read."""
        return sum(rows["read"] for rows in self.rows.values())

    @property
    def missing(self) -> list[str]:
        """The streams that a source does not have."""
        return [stream for block in self.blocks for stream in block.missing]

    @property
    def block(self) -> BlockOutcome:
        """The block under way, or the last."""
        return self.blocks[min(self._done, len(self.blocks) - 1)]

    @property
    def failed(self) -> BlockOutcome | None:
        """The block that failed, if one did."""
        return next((block for block in self.blocks if block.success is False), None)

    @property
    def culprit(self) -> BlockOutcome:
        """The block to name when the run did not end well."""
        return self.failed or self.block

    @property
    def ended_well(self) -> bool:
        """Whether every block ran and ended well."""
        return all(block.success for block in self.blocks)

    @property
    def busy(self) -> bool:
        """Whether another run, from elsewhere, kept this one out."""
        said = [*self.culprit.errors, *(line.text for line in self.culprit.last_lines)]
        return any(busy in text for text in said for busy in _BUSY)

    def take(self, event: Event) -> None:
        """Add `event`."""
        match event:
            case Rows(stream, count, what):
                self.rows.setdefault(stream, Counter())[what] += count
            case StreamBegan(stream, incremental):
                self.rows.setdefault(stream, Counter())
                if incremental:
                    self.incremental.add(stream)
            case BlockDone(success, error):
                self.block.success, self.block.error = success, error
                self._done += 1
            case _:
                self.block.take(event)

    def reason(self) -> str:
        """Return in one line why the failed block failed."""
        block = self.culprit
        if block.failed_nodes:
            names = ", ".join(block.failed_nodes[:3])
            more = len(block.failed_nodes) - 3
            return f"{names}{f' and {more} more' if more > 0 else ''} failed"
        lines = [_one_line(line.text) for line in block.last_lines]
        # the last line of a traceback that came as text
        if raised := [line for line in lines if _EXCEPTION.match(line)]:
            return raised[-1]
        if block.errors:
            # the first says where it happened, the next what it was
            return ": ".join(dict.fromkeys(map(_one_line, block.errors[:2])))
        for heading, cause in pairwise(lines):
            # dbt says the kind in one line and the reason in the next
            if _DBT_ERROR.match(heading):
                return f"{heading}: {cause}"
        return _one_line(block.error or "") or (lines[-1] if lines else "it ended without a word")


def _one_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "").strip().rstrip(".")
