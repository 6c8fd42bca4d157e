"""The content of the page, in the form of its JSON."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  (pydantic needs it at run time)

from pydantic import BaseModel, computed_field


def first_line(text: str | None) -> str | None:
    """Return the first line that is not blank."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), None)


class RunEntry(BaseModel):
    """The result of a stream in one run."""

    run_id: str
    outcome: str
    started_at: datetime
    ended_at: datetime | None
    rows_read: int
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    rows_rejected: int
    error: str | None


class Comparison(BaseModel):
    """The result of `tidemark reconcile` for a stream. Without figures if the stream could not be compared.

    Attributes:
        since: only rows from this value of the replication key on were compared; None if all were.
        repaired: how many rows a repair wrote; None without a repair.
    """

    compared_at: datetime
    since: str | None
    rows_source: int | None
    rows_warehouse: int | None
    missing: int | None
    different: int | None
    extra: int | None
    pending: int | None
    repaired: int | None
    error: str | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def outcome(self) -> str:
        """`failed`, `equal`, `different`, or `repaired` if a repair fixed the differences."""
        if self.error is not None:
            return "failed"
        if not (self.missing or self.different or self.extra):
            return "equal"
        return "different" if self.repaired is None else "repaired"


class StreamEntry(BaseModel):
    """A stream that was loaded or was meant to be.

    Attributes:
        source: the name of its source; the schema that it is loaded into, if no source of the project has that.
        database: identifies the database that it was last read from.
        into: the schema that it is loaded into.
        table: its table with the schema; None while that is unknown.
        bookmark: its bookmark; of a LOG_BASED stream, its position in the log.
        lag_seconds: the age of the source's state that the warehouse has in full; None if it was never loaded.
        log: how a LOG_BASED stream stands: following, loading, to be repaired, or left the log; None for others.
        repair: why a LOG_BASED stream must be repaired.
        runs: the latest runs, oldest first.
    """

    source: str
    stream: str
    database: str
    into: str
    table: str | None = None
    bookmark: str | None = None
    lag_seconds: float | None = None
    log: str | None = None
    repair: str | None = None
    runs: list[RunEntry] = []
    comparison: Comparison | None = None

    @property
    def last(self) -> RunEntry | None:
        """The latest run; a repair does not count."""
        return self.runs[-1] if self.runs else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def outcome(self) -> str:
        """The latest run's outcome. Without a run: `never loaded`, or `loaded` if no run records are kept."""
        if self.last:
            return self.last.outcome
        return "never loaded" if self.lag_seconds is None else "loaded"

    @property
    def troubled(self) -> bool:
        """Whether someone should look at it: it failed, rejected rows, must be repaired, or differs from its source."""
        failed = self.outcome in {"failed", "killed", "never loaded"} or self.repair is not None
        rejected = bool(self.last and self.last.rows_rejected)
        return failed or rejected or bool(self.comparison and self.comparison.outcome in {"failed", "different"})


class SchemaChange(BaseModel):
    """A change of a column in the source."""

    changed_at: datetime
    source: str
    stream: str
    column: str
    change: str
    was: str | None
    becomes: str | None


class ModelEntry(BaseModel):
    """A model or snapshot of dbt.

    Attributes:
        outcome: the outcome of the latest run with it; `seconds`, `rows` and `message` belong to the same run.
        built_at: when it was last built successfully.
    """

    model: str
    outcome: str
    built_at: datetime | None
    seconds: float
    rows: int | None
    message: str | None


class SourceEntry(BaseModel):
    """A source with its streams, those that someone should look at first.

    Attributes:
        retired: whether it was given up.
    """

    name: str
    retired: bool = False
    streams: list[StreamEntry]

    @property
    def troubled(self) -> list[StreamEntry]:
        """The streams that someone should look at. Nobody expects anything of a retired source."""
        return [] if self.retired else [stream for stream in self.streams if stream.troubled]

    @property
    def well(self) -> list[StreamEntry]:
        """The other streams."""
        troubled = self.troubled
        return [stream for stream in self.streams if stream not in troubled]


class StreamsPage(BaseModel):
    """The whole page.

    Attributes:
        retired: the names of sources that were given up.
        notes: what can't be shown, and why.
    """

    warehouse: str
    at: datetime
    streams: list[StreamEntry] = []
    schema_changes: list[SchemaChange] = []
    models: list[ModelEntry] = []
    retired: list[str] = []
    notes: list[str] = []

    @property
    def sources(self) -> list[SourceEntry]:
        """The sources, those with streams that someone should look at first."""
        by_name: dict[str, list[StreamEntry]] = {}
        for stream in self.streams:
            by_name.setdefault(stream.source, []).append(stream)
        found = [
            SourceEntry(name=name, retired=name in self.retired, streams=streams) for name, streams in by_name.items()
        ]
        return sorted(found, key=lambda source: (not source.troubled, source.retired))
