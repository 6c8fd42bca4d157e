"""What tap and target say to each other: the `pgcopy` batch, version 1.

A stream's SCHEMA message carries a `pgcopy` object that describes its table (`Table`). Each BATCH message then has an
`encoding` that describes one file of COPY text (`Chunk`), and a `manifest` that names it. What passes a stream on after
changing it (a mapper) drops the SCHEMA's `pgcopy` object, which tells the target to refuse the files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from singer_postgres.core.errors import SingerPostgresError

FORMAT = "pgcopy"
VERSION = 1

Method = Literal["INCREMENTAL", "FULL_TABLE"]

# keys of a stream's state. While its first load is under way: [watermark, [[relfilenode, first, after], …]]. Lists, and
# empty ones in the end: states are merged key by key, so that a key can't be taken away.
FIRST_LOAD = "first_load"
# and, beside a bookmark or a first load: what of the table it is of, as Shape.to_json() has it
SHAPE = "shape"
# and, of a replication key that is not a time: what earlier runs saw of its values, as KeyTrail.to_json() has it
KEY_TRAIL = "key_trail"

# begins the names of the tables and columns that the warehouse has beside the streams' own
OWN = "_tidemark_"


def refuse_own_name(stream: str, table: str) -> None:
    """Refuse a stream whose table would be one of the warehouse's own.

    Raises:
        SingerPostgresError: it would.
    """
    if table.startswith(OWN):
        msg = (
            f"{stream} would be loaded into a table {table}, and names that begin with {OWN} are those of the "
            "warehouse's own tables: deselect it, or rename it in a view and select that."
        )
        raise SingerPostgresError(msg)


@dataclass(frozen=True)
class WireColumn:
    """A column as it is to be in the warehouse.

    Attributes:
        name: its name, in the source and in the warehouse.
        type: its PostgreSQL type with modifiers, such as `numeric(12,2)`.
        extension: the type is not built in; where the warehouse doesn't have it, text takes its place.
        attnum: its number in the source's table, which a new name doesn't change and no other column gets.
        missing_value: what rows hold in it that were there before it was added, as text.
    """

    name: str
    type: str
    extension: bool = False
    attnum: int = 0
    missing_value: str | None = None


@dataclass(frozen=True)
class Table:
    """What a stream's rows look like.

    Attributes:
        source: the database the rows come from: its server's system identifier and its own oid.
        schema: the source table's schema.
        name: the source table's name.
        columns: in the order of the files.
        key: the columns that tell rows apart; empty if nothing does.
        method: how the stream is read.
        binary: the files are in COPY's binary form, which servers write and read in half the time; else in its text
            form, which every type has and every version understands.
        table_oid: tells the source's table from another that had its name before; 0 of what has no rows of its own.
        max_attnum: the largest number that a column of the source's table has had.
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

    def to_json(self) -> dict[str, Any]:
        """Return the `pgcopy` object of a SCHEMA message."""
        return {"version": VERSION, **_to_wire(asdict(self))}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Table:
        """Read the `pgcopy` object of a SCHEMA message.

        Raises:
            SingerPostgresError: it is of another version.
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
        )


# what version 1 calls a field that has another name here
_MEMBERS = {
    "attnum": "number",
    "missing_value": "past",
    "table_oid": "relation",
    "max_attnum": "width",
    "lsn": "position",
}
# relfilenode, first block, block after the last (None: to the end)
BlockRange = tuple[int, int, int | None]


@dataclass(frozen=True)
class Chunk:
    """One file of COPY text, or the mark that a stream has ended.

    Attributes:
        rows: in the file; None where the tap didn't count them.
        bytes: of the file.
        crc32: of the file's bytes.
        snapshot: names the snapshot that the rows were read under; chunks of one snapshot hold each row once.
        snapshot_at: that snapshot's instant, ISO 8601 in UTC.
        lsn: a place in the source's WAL before which lies all that the snapshot sees.
        start: the bookmark that the stream was read from; None when it is read from its beginning.
        end: the bookmark that holds once the stream has ended; None for a stream without one.
        blocks: what this chunk completes of a first load, for its resumption; None when it completes nothing.
        resumed: what of that first load earlier runs have loaded.
        last: the stream has ended: all its chunks came before this message, which names no file.
        backfill: the rows are of any part of a stream that is loaded already; its bookmark stays where it is.
    """

    rows: int | None = 0
    bytes: int = 0
    crc32: int = 0
    snapshot: str = ""
    snapshot_at: str = ""
    lsn: str | None = None
    start: str | None = None
    end: str | None = None
    blocks: BlockRange | None = None
    resumed: tuple[BlockRange, ...] = ()
    last: bool = False
    backfill: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the `encoding` of a BATCH message."""
        return {"format": FORMAT, "version": VERSION, **_to_wire(asdict(self))}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Chunk:
        """Read the `encoding` of a BATCH message.

        Raises:
            SingerPostgresError: it is of another format or version.
        """
        _expect(value.get("format") == FORMAT, "format", value.get("format"))
        _expect(value.get("version") == VERSION, "version", value.get("version"))
        fields = {name: value[_MEMBERS.get(name, name)] for name in cls.__dataclass_fields__}
        fields["blocks"] = _block_range(fields["blocks"])
        fields["resumed"] = tuple(_block_range(block_range) for block_range in fields["resumed"])
        return cls(**fields)


def _to_wire(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields by the names that version 1 has for them."""
    members = {_MEMBERS.get(name, name): value for name, value in fields.items()}
    if "columns" in members:
        members["columns"] = [_to_wire(column) for column in members["columns"]]
    return members


def _from_wire(members: dict[str, Any]) -> dict[str, Any]:
    names = {member: name for name, member in _MEMBERS.items()}
    return {names.get(member, member): value for member, value in members.items()}


def _block_range(value: Any) -> BlockRange | None:
    return None if value is None else (value[0], value[1], value[2])


def _expect(condition: bool, what: str, value: object) -> None:  # noqa: FBT001
    if not condition:
        msg = (
            f"BATCH {what} {value!r} is not understood (expected format {FORMAT!r}, version {VERSION}): "
            "install the tap and the target of one release."
        )
        raise SingerPostgresError(msg)
