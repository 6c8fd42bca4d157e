"""The wire format between tap and target: the `pgcopy` batch, version 1.

A stream's SCHEMA message carries a `pgcopy` object that describes its table (`Table`). Each BATCH message has an
`encoding` and a `manifest`. The encoding describes a file of COPY data (`Chunk`), which the manifest names, or a range
without rows (`EmptyRange`), or the end of the stream (`StreamEnd`). Of LOG_BASED streams, there are also files of
changes (`Changes`), and positions up to which all of them are to be committed together (`Cut`). A mapper that changes a
stream drops the SCHEMA's `pgcopy` object, and then the target refuses the files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from singer_postgres.core.errors import NameTakenError, ReleaseMismatchError
from singer_postgres.core.log_origin import History, LogOrigin
from singer_postgres.core.read_report import ReadReport

FORMAT = "pgcopy"
VERSION = 1

Method = Literal["INCREMENTAL", "FULL_TABLE", "LOG_BASED"]

# Keys of a stream's state. During its first load: [watermark, [[relfilenode, first, after], …]], and after a comparison
# instead of a load also its position in the log. The values are lists, empty ones in the end: states are merged key by
# key, so a key can't be removed.
FIRST_LOAD = "first_load"
# beside a bookmark or a first load: what was read from the table, as ReadColumns.to_json() gives it
SHAPE = "shape"
# for replication keys that are not times: the values that earlier runs saw, as KeyTrail.to_json() gives them
KEY_TRAIL = "key_trail"
# of LOG_BASED streams whose first load is complete: [slot, LSN up to which the warehouse has the stream, where the rows
# were in the source when a run began (oids and relfilenodes)]
LOG = "log"

# in the `pgcopy` object: the log describes the table, as it was where the changes that follow were made
OF_LOG = "of_log"
# what the target writes into a cut's FIFO while it works on it, beside the positions that it has committed
ALIVE = "alive"

# the prefix of the warehouse's own tables and columns
OWN = "_tidemark_"


def refuse_own_name(stream: str, table: str) -> None:
    """Refuse a stream whose table has a name of the warehouse's own tables.

    Raises:
        SingerPostgresError: the name begins with the prefix.
    """
    if table.startswith(OWN):
        msg = (
            f"{stream} would be loaded into a table {table}, and names that begin with {OWN} are reserved for the "
            "warehouse's own tables: deselect it, or rename it in a view and select that."
        )
        raise NameTakenError(msg)


@dataclass(frozen=True)
class WireColumn:
    """A column as the warehouse is to have it.

    Attributes:
        name: its name, in the source and in the warehouse.
        type: its PostgreSQL type with modifiers, such as `numeric(12,2)`.
        extension: the type is an extension's. If the warehouse lacks it, the column becomes text.
        attnum: its attnum in the source's table, which survives a rename and is never reused.
        missing_value: the value, as text, of rows that are older than the column.
    """

    name: str
    type: str
    extension: bool = False
    attnum: int = 0
    missing_value: str | None = None


@dataclass(frozen=True)
class Table:
    """A stream's table.

    Attributes:
        source: the database that the rows come from: its server's system identifier and its own oid.
        schema: the source table's schema.
        name: the source table's name.
        columns: in the order of the files.
        key: the columns that identify a row; empty if there is no key.
        method: how the stream is read.
        binary: the files have COPY's binary form, which servers write and read in half the time. Otherwise they have
            the text form, which works for every type and version.
        table_oid: the oid of the source's table, which differs for another table of the same name; 0 for a view.
        max_attnum: the largest attnum that the source's table has used.
        commits: rows are to have the commit that changed them last (`metadata_columns.COMMITS`); of LOG_BASED streams.
        history: all changes are to be kept in a table beside it (`change_history`); of LOG_BASED streams.
    """

    source: str
    schema: str
    name: str
    columns: tuple[WireColumn, ...]
    key: tuple[str, ...]
    method: Method
    binary: bool = False
    table_oid: int = 0
    max_attnum: int = 0
    commits: bool = False
    history: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the `pgcopy` object of a SCHEMA message."""
        return {"version": VERSION, **_to_wire(asdict(self))}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Table:
        """Read the `pgcopy` object of a SCHEMA message.

        Raises:
            SingerPostgresError: the object has another version.
        """
        _expect(value.get("version") == VERSION, "version", value.get("version"))
        return cls(
            source=value["source"],
            schema=value["schema"],
            name=value["name"],
            columns=tuple(WireColumn(**_from_wire(column)) for column in value["columns"]),
            key=tuple(value["key"]),
            method=value["method"],
            binary=value["binary"],
            table_oid=value["relation"],
            max_attnum=value["width"],
            # an older tap does not say
            commits=value.get("commits", False),
            history=value.get("history", False),
        )


# version 1 has other names for some fields
_MEMBERS = {
    "attnum": "number",
    "missing_value": "past",
    "table_oid": "relation",
    "max_attnum": "width",
}
# relfilenode, first block, block after the last (None: up to the end)
BlockRange = tuple[int, int, int | None]


@dataclass(frozen=True, kw_only=True)
class BatchOrigin:
    """What all BATCH messages of a stream say of how it is read.

    Attributes:
        snapshot: the name of the snapshot under which the rows were read; its chunks contain each row once.
        snapshot_at: that snapshot's instant, ISO 8601 in UTC.
        lsn: a position in the source's WAL; everything that the snapshot sees lies before it.
        start: the bookmark that the stream was read from; None if it was read from its beginning.
        end: the stream's bookmark once it has ended; None for a stream without one.
        resumed: the block ranges of a first load that earlier runs have loaded.
        backfill: the rows are read again, from any part of a loaded stream. The bookmark stays where it is.
    """

    snapshot: str = ""
    snapshot_at: str = ""
    lsn: str | None = None
    start: str | None = None
    end: str | None = None
    resumed: tuple[BlockRange, ...] = ()
    backfill: bool = False

    @property
    def common(self) -> dict[str, Any]:
        """The fields above, for another message of the stream."""
        return {field.name: getattr(self, field.name) for field in fields(BatchOrigin)}

    def _encoding(
        self,
        *,
        rows: int | None = 0,
        bytes_: int = 0,
        crc32: int = 0,
        blocks: BlockRange | None = None,
        last: bool = False,
    ) -> dict[str, Any]:
        """Return the members of version 1, which every message has."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "rows": rows,
            "bytes": bytes_,
            "crc32": crc32,
            "snapshot": self.snapshot,
            "snapshot_at": self.snapshot_at,
            "position": self.lsn,
            "start": self.start,
            "end": self.end,
            "blocks": blocks,
            "resumed": self.resumed,
            "last": last,
            "backfill": self.backfill,
        }


@dataclass(frozen=True, kw_only=True)
class Chunk(BatchOrigin):
    """One file of COPY data.

    Attributes:
        rows: the number of rows in the file; None if the tap didn't count them.
        bytes: the size of the file.
        crc32: the checksum of the file's bytes.
        blocks: the block range of a first load that this chunk completes, to resume from; None if it completes none.
        again: all ranges were read before it, and some of its rows came with them.
    """

    rows: int | None
    bytes: int
    crc32: int
    blocks: BlockRange | None = None
    again: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the `encoding` of a BATCH message."""
        found = self._encoding(rows=self.rows, bytes_=self.bytes, crc32=self.crc32, blocks=self.blocks)
        return {**found, "again": True} if self.again else found


@dataclass(frozen=True, kw_only=True)
class EmptyRange(BatchOrigin):
    """A block range of a first load that holds no rows, and so has no file."""

    blocks: BlockRange

    def to_json(self) -> dict[str, Any]:
        """Return the `encoding` of a BATCH message."""
        return self._encoding(blocks=self.blocks)


@dataclass(frozen=True, kw_only=True)
class StreamEnd(BatchOrigin):
    """The end of a stream. All its chunks come before it.

    Attributes:
        report: how the stream was read.
    """

    report: ReadReport = field(default_factory=ReadReport)

    def to_json(self) -> dict[str, Any]:
        """Return the `encoding` of a BATCH message."""
        return {**self._encoding(last=True), "report": asdict(self.report)}


@dataclass(frozen=True, kw_only=True)
class Changes:
    """A file of a LOG_BASED stream's changes: rows of COPY with the columns of `change_columns`, and then the stream's.

    Attributes:
        binary: the rows have COPY's binary form.
        has_unchanged: some rows lack TOASTed values that did not change.
        has_moved: some rows have another key than before.
        has_truncated: the table was truncated.
    """

    rows: int
    bytes: int
    crc32: int
    binary: bool
    has_unchanged: bool = False
    has_moved: bool = False
    has_truncated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the `encoding` of a BATCH message."""
        return {"format": FORMAT, "version": VERSION, "kind": "changes", **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A position in the log at which no transaction is open: all changes before it are committed together.

    Attributes:
        slot: the replication slot that the changes come from.
        system, timeline, history: the log's origin; see `LogOrigin`.
        start: the position of the cut before this one; at first, the slot's confirmed position.
        end: the position up to which the log was read.
        at: the instant of the last transaction, or of the source's clock if there was none; ISO 8601 in UTC.
        streams: those whose changes are in it. Others that follow the slot have left the cut, and must be loaded again.
        loading: those of them whose first load is not complete.
        loaded: those whose first load has become complete at this position.
        doubts: why a stream's rows may differ from the source's, by stream; the log does not tell of all that happens.
        wal: the WAL that the source keeps for the slot, and what of it comes after `end`, in bytes; None if nobody
            looked since the cut before this one.
        acknowledge: the path of a FIFO that takes a line with the cut's end once it is committed, and `ALIVE` before.
        last: the run ends here.
    """

    slot: str
    system: str
    timeline: int
    start: str
    end: str
    at: str
    streams: tuple[str, ...] = ()
    loading: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    history: History = ()
    doubts: dict[str, str] = field(default_factory=dict)
    wal: tuple[int, int] | None = None
    acknowledge: str = ""
    last: bool = False

    @property
    def origin(self) -> LogOrigin:
        """Which log it is a position in."""
        return LogOrigin(self.system, self.timeline, self.history)

    def to_json(self) -> dict[str, Any]:
        """Return the `encoding` of a BATCH message."""
        return {"format": FORMAT, "version": VERSION, "kind": "cut", **asdict(self)}


Batch = Chunk | EmptyRange | StreamEnd | Changes | Cut
# the batches of a table that is read, and not its log
ReadBatch = Chunk | EmptyRange | StreamEnd


def batch_from_json(value: dict[str, Any]) -> Batch:
    """Read the `encoding` of a BATCH message.

    Raises:
        SingerPostgresError: it has another format or version.
    """
    _expect(value.get("format") == FORMAT, "format", value.get("format"))
    _expect(value.get("version") == VERSION, "version", value.get("version"))
    kind = {"changes": Changes, "cut": Cut}.get(value.get("kind", ""))
    if kind is not None:
        members = {each.name: value[each.name] for each in fields(kind)}
        return kind(**members | {name: _tuple(each) for name, each in members.items() if isinstance(each, list)})
    origin = BatchOrigin(
        snapshot=value["snapshot"],
        snapshot_at=value["snapshot_at"],
        lsn=value["position"],
        start=value["start"],
        end=value["end"],
        resumed=tuple(_block_range(block_range) for block_range in value["resumed"]),
        backfill=value["backfill"],
    )
    if value["last"]:
        reported = value.get("report", {})
        # an older tap reports nothing, and a newer one may report more
        report = ReadReport(**{each.name: reported[each.name] for each in fields(ReadReport) if each.name in reported})
        return StreamEnd(**origin.common, report=report)
    blocks = None if value["blocks"] is None else _block_range(value["blocks"])
    if blocks is not None and not value["bytes"]:
        return EmptyRange(**origin.common, blocks=blocks)
    counts = {name: value[name] for name in ("rows", "bytes", "crc32")}
    return Chunk(**origin.common, **counts, blocks=blocks, again=value.get("again", False))


def _tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(each) if isinstance(each, list) else each for each in values)


def _to_wire(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields by their names in version 1."""
    members = {_MEMBERS.get(name, name): value for name, value in fields.items()}
    if "columns" in members:
        members["columns"] = [_to_wire(column) for column in members["columns"]]
    return members


def _from_wire(members: dict[str, Any]) -> dict[str, Any]:
    names = {member: name for name, member in _MEMBERS.items()}
    return {names.get(member, member): value for member, value in members.items()}


def _block_range(value: Any) -> BlockRange:
    first, second, third = value
    return first, second, third


def _expect(condition: bool, what: str, value: object) -> None:  # noqa: FBT001
    if not condition:
        msg = (
            f"BATCH {what} {value!r} is not understood (expected format {FORMAT!r}, version {VERSION}): "
            "install tap and target of the same release."
        )
        raise ReleaseMismatchError(msg)
