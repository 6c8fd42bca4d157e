"""What the page shows, as its JSON has it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  (pydantic looks at it when it runs)

from pydantic import BaseModel, computed_field


def first_line(text: str | None) -> str | None:
    """Return the first line that says something."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), None)


class RunEntry(BaseModel):
    """What became of a stream in one run."""

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
    """What `tidemark reconcile` found of a stream: no figures where it could not be compared.

    Attributes:
        since: rows from this value of the replication key on were compared; None if all were.
        repaired: how many rows a repair wrote; None if there was none.
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
        """`failed`, `equal`, `different`, or `repaired` where what was different was mended."""
        if self.error is not None:
            return "failed"
        if not (self.missing or self.different or self.extra):
            return "equal"
        return "different" if self.repaired is None else "repaired"


class StreamEntry(BaseModel):
    """A stream, loaded or meant to be.

    Attributes:
        database: what tells its source from others.
        into: the schema that it lands in.
        table: as well as its table; None as long as that is not known.
        lag_seconds: how old the state of the source is that the warehouse has all of; None if it was never loaded.
        runs: the latest, oldest first.
    """

    stream: str
    database: str
    into: str
    table: str | None = None
    bookmark: str | None = None
    lag_seconds: float | None = None
    runs: list[RunEntry] = []
    comparison: Comparison | None = None

    @property
    def last(self) -> RunEntry | None:
        """The latest run; a repair is none."""
        return self.runs[-1] if self.runs else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def outcome(self) -> str:
        """Of the latest run; without one `never loaded`, or `loaded` if no history is kept."""
        if self.last:
            return self.last.outcome
        return "never loaded" if self.lag_seconds is None else "loaded"


class SchemaChange(BaseModel):
    """What became of a column of the source."""

    changed_at: datetime
    stream: str
    column: str
    change: str
    was: str | None
    becomes: str | None


class Model(BaseModel):
    """A model or snapshot of dbt.

    Attributes:
        outcome: of the latest run that it was part of, which `seconds`, `rows` and `message` are of too.
        built_at: when it was last built well.
    """

    model: str
    outcome: str
    built_at: datetime | None
    seconds: float
    rows: int | None
    message: str | None


class Overview(BaseModel):
    """All of it.

    Attributes:
        notes: what can't be shown, and why.
    """

    warehouse: str
    at: datetime
    streams: list[StreamEntry] = []
    schema_changes: list[SchemaChange] = []
    models: list[Model] = []
    notes: list[str] = []
