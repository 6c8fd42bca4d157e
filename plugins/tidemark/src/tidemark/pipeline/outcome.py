"""What one run did, gathered from its events. Pure: no I/O here."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from tidemark.pipeline.events import BlockDone, Event, Line, NodeDone, Rows, StreamBegan, Totals

# how many lines before a failure are worth a reader's time
_TAIL = 12


@dataclass
class Block:
    """One block of the run: what dbt counted in it, whether it ended well, what it said last."""

    title: str
    totals: Totals | None = None
    success: bool | None = None
    error: str | None = None
    failed_nodes: list[str] = field(default_factory=list)
    last_lines: deque[Line] = field(default_factory=lambda: deque(maxlen=_TAIL))
    errors: list[str] = field(default_factory=list)


class Outcome:
    """Takes a run's events in order."""

    def __init__(self, titles: list[str]) -> None:
        """Expect one block for each of `titles`."""
        self.blocks = [Block(title) for title in titles]
        self.read: defaultdict[str, int] = defaultdict(int)
        self.written: defaultdict[str, int] = defaultdict(int)
        self._done = 0

    @property
    def block(self) -> Block:
        """The block under way, or the last."""
        return self.blocks[min(self._done, len(self.blocks) - 1)]

    @property
    def failed(self) -> Block | None:
        """The block that failed, if one did."""
        return next((block for block in self.blocks if block.success is False), None)

    @property
    def culprit(self) -> Block:
        """The block to name when the run did not end well."""
        return self.failed or self.block

    @property
    def ended_well(self) -> bool:
        """Whether every block ran and ended well."""
        return all(block.success for block in self.blocks)

    def take(self, event: Event) -> None:
        """Add `event`."""
        match event:
            case Rows(stream, count, written=True):
                self.written[stream] += count
            case Rows(stream, count):
                self.read[stream] += count
            case StreamBegan(stream):
                self.read[stream] += 0
            case NodeDone(status="ERROR" | "FAIL", what=what):
                self.block.failed_nodes.append(what)
            case Totals():
                self.block.totals = event
            case BlockDone(success, error):
                self.block.success, self.block.error = success, error
                self._done += 1
            case Line(text, _, level) if text:
                self.block.last_lines.append(event)
                if level in {"error", "critical"}:
                    self.block.errors.append(text)

    def reason(self) -> str:
        """Return in one line why the failed block failed."""
        block = self.culprit
        if block.failed_nodes:
            names = ", ".join(block.failed_nodes[:3])
            more = len(block.failed_nodes) - 3
            return f"{names}{f' and {more} more' if more > 0 else ''} failed"
        if block.errors:
            # the first says where it happened, the next what it was
            return ": ".join(dict.fromkeys(map(_one_line, block.errors[:2])))
        for line in reversed(block.last_lines):
            if "rror" in line.text:
                return _one_line(line.text)
        return _one_line(block.error or (block.last_lines[-1].text if block.last_lines else "it ended without a word"))


def _one_line(text: str) -> str:
    return text.strip().splitlines()[0].strip().rstrip(".")
