"""The result of one run, collected from its events. Pure: no I/O here."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from singer_postgres.core.errors import ProcessGoneError, TableMissingError
from tidemark.run.events import (
    BlockDone,
    Event,
    Failure,
    LeftOut,
    NodeDone,
    PartOfModels,
    Rows,
    StreamBegan,
    TextLine,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

# how many lines before a failure to show
_TAIL = 12
_NAMED = 3


@dataclass
class BlockOutcome:
    """The result of one Meltano block: its counts of dbt nodes, its success, and its errors.

    Attributes:
        names: the arguments of `meltano run`, such as `tap-postgres target-postgres`.
        title: what to call it; the names by default.
        counted: what the counts of dbt nodes mean, such as `tests passed`.
        source: what comes before the names of its streams, such as `crm/`, if the run loads several sources.
        missing: streams that `select` or `metadata` names and the source does not have.
        streams: the only streams that it reads; None for all that are selected.
        part: the models that dbt was asked for; None if for all.
        left_out: models that were left out, because a source that they stand on was not loaded.
    """

    names: str
    title: str = ""
    counted: str = "nodes"
    source: str = ""
    passed: int = 0
    warned: int = 0
    success: bool | None = None
    error: str | None = None
    failed_nodes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    last_lines: deque[TextLine] = field(default_factory=lambda: deque(maxlen=_TAIL))
    missing: list[str] = field(default_factory=list)
    streams: frozenset[str] | None = None
    part: set[str] | None = None
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.title = self.title or self.names

    @property
    def tap(self) -> str | None:
        """The tap that it runs; None if it runs none."""
        first = self.names.split()[0]
        return first if first.startswith("tap-") else None

    @property
    def failed_streams(self) -> set[str]:
        """The streams that failed, as far as its errors tell."""
        return {f"{self.source}{failure.stream}" for failure in self.failures if failure.stream}

    def take(self, event: Event) -> None:
        """Add an event of this block."""
        match event:
            case NodeDone(status="ERROR" | "FAIL", what=what):
                self.failed_nodes.append(what)
            case NodeDone(status="OK" | "PASS"):
                self.passed += 1
            case NodeDone(status="WARN"):
                self.warned += 1
            case PartOfModels(models):
                self.part = (self.part or set()) | set(models)
            case LeftOut(models):
                self.left_out += models
            case Failure(code=TableMissingError.code, stream=str(stream)):
                self.missing.append(stream)
                self.failures.append(event)
            case Failure():
                self.failures.append(event)
            case TextLine(text) if text.strip():
                self.last_lines.append(event)

    def failure(self) -> Failure:
        """Return why the block failed: the first error that ended it, or else the first error of a stream."""
        found = [failure for failure in self.failures if failure.stream is None] or self.failures
        if found:
            return found[0]
        lines = [line.text.strip() for line in self.last_lines]
        failed = f"{named(self.failed_nodes)} failed, and dbt ended without saying why" if self.failed_nodes else ""
        said = failed or self.error or (lines[-1].splitlines()[0] if lines else "it ended without an error message")
        gone = ProcessGoneError()
        return Failure(said.strip().rstrip("."), gone.code, gone.transient, gone.cure)


class RunOutcome:
    """Takes a run's events in order."""

    def __init__(self, blocks: Iterable[BlockOutcome]) -> None:
        """Expect these blocks, in this order."""
        self.blocks = list(blocks)
        self.rows: dict[str, Counter[str]] = {}
        self.incremental: set[str] = set()
        self._done = 0

    @property
    def missing(self) -> list[str]:
        """The streams that the source does not have."""
        return [f"{block.source}{stream}" for block in self.blocks for stream in block.missing]

    @property
    def failed_streams(self) -> list[str]:
        """The streams that failed."""
        return sorted(stream for block in self.blocks for stream in block.failed_streams)

    @property
    def left_out(self) -> list[str]:
        """The models that were left out, because a source that they stand on was not loaded."""
        return sorted({model for block in self.blocks for model in block.left_out})

    @property
    def why_left_out(self) -> str:
        """Which sources were not loaded, in words."""
        failed = [block.source.rstrip("/") for block in self.blocks if block.tap and block.success is False]
        if not failed:
            return "because the first load of a table that they stand on has not ended"
        return f"because {' and '.join(failed)} {'were' if len(failed) > 1 else 'was'} not loaded"

    @property
    def block(self) -> BlockOutcome:
        """The running block, or the last one."""
        return self.blocks[min(self._done, len(self.blocks) - 1)]

    @property
    def culprit(self) -> BlockOutcome:
        """The block to name in the error of a failed run."""
        failed = (block for block in self.blocks if block.success is False)
        return next(failed, next((block for block in self.blocks if block.missing), self.block))

    @property
    def ended_well(self) -> bool:
        """Whether every block succeeded."""
        return all(block.success for block in self.blocks)

    def take(self, event: Event) -> None:
        """Add `event`."""
        match event:
            case Rows(stream, count, what):
                self.rows.setdefault(f"{self.block.source}{stream}", Counter())[what] += count
            case StreamBegan(stream, incremental):
                self.rows.setdefault(f"{self.block.source}{stream}", Counter())
                if incremental:
                    self.incremental.add(f"{self.block.source}{stream}")
            case BlockDone(success, error):
                self.block.success, self.block.error = success, error
                self._done += 1
            case _:
                self.block.take(event)

    def streams_of(self, block: BlockOutcome) -> dict[str, Counter[str]]:
        """Return the rows of each stream that a block has begun to read."""
        return {stream: rows for stream, rows in self.rows.items() if stream.startswith(block.source)}

    def loaded(self, block: BlockOutcome) -> dict[str, Counter[str]]:
        """Return the rows of each stream of a block that was loaded, as far as its errors tell."""
        failed = block.failed_streams
        if block.success is False and not failed:
            # the run ended, and nothing says how far each stream was
            return {}
        return {stream: rows for stream, rows in self.streams_of(block).items() if stream not in failed}

    def progress(self, block: BlockOutcome) -> str:
        """Return how far a load is, in words; of one that failed, what was loaded all the same."""
        begun = self.streams_of(block)
        if block.success is not False:
            return f"{_read(begun):,} rows of {_count(len(begun), 'stream')}"
        if any(failure.stream for failure in block.failures):
            loaded = self.loaded(block)
            return f"{_read(loaded):,} rows of {len(loaded)} of {_count(len(begun), 'stream')}"
        written = sum(rows[what] for rows in begun.values() for what in ("inserted", "updated", "deleted"))
        return f"{written:,} rows written"

    def add(self, later: RunOutcome) -> None:
        """Add the rows of a further `meltano run` with some of these blocks."""
        for stream, rows in later.rows.items():
            self.rows.setdefault(stream, Counter()).update(rows)
        self.incremental |= later.incremental

    def without_source(self, stream: str) -> str:
        """Return a name in `rows` as the tap has it."""
        start = next((block.source for block in self.blocks if block.source and stream.startswith(block.source)), "")
        return stream.removeprefix(start)

    def failure(self) -> Failure | None:
        """Return why the run failed; None if it succeeded."""
        if not self.ended_well:
            return self.culprit.failure()
        if self.missing:
            kind = TableMissingError()
            others = "; all other streams were loaded" if self.rows.keys() - set(self.missing) else ""
            said = f"The source has no {', '.join(self.missing)}{others}"
            return Failure(said, kind.code, kind.transient, kind.cure)
        return None


def _read(streams: dict[str, Counter[str]]) -> int:
    return sum(rows["read"] for rows in streams.values())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def named(nodes: list[str]) -> str:
    """Return the first names of a list, and how many there are besides."""
    more = len(nodes) - _NAMED
    return f"{', '.join(nodes[:_NAMED])}{f' and {more} more' if more > 0 else ''}"
