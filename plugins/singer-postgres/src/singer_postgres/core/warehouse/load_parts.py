"""`_tidemark_load_parts`: first loads that several runs share, and how far each part of them is.

A shared first load has an id. It owns the stream in `_tidemark_state` as a run does, so a run that reads the stream
from its beginning ends it. Its watermark is taken before the first part is read: rows that change later have a later
stamp, and the next run reads them. The loads of the parts hold the stream's run lock together (`run_lock`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import LockLostError, StateAheadError
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from singer_postgres.core.load_part import LoadPart
    from singer_postgres.core.wire import BlockRange

    Connection = psycopg.Connection[Any]

TABLE = SystemTable(
    "_tidemark_load_parts",
    (
        """
        -- One row per part of a first load that several runs share. The run that completes the load deletes them.
        -- Written by: `tidemark run --shard`, and the target, in the transactions that load the part.
        -- Read by: `tidemark run`, the target.
        CREATE TABLE {} (
            source text NOT NULL, -- the source database, as in `_tidemark_runs`
            stream text NOT NULL, -- the Singer stream
            part integer NOT NULL, -- the number of the part
            load_id text NOT NULL, -- identifies the shared load
            table_name text NOT NULL, -- the stream's table in this schema
            ranges jsonb NOT NULL, -- its ranges of disk blocks: relfilenode, first block, block after the last
            bytes bigint NOT NULL, -- about how much that is in the source
            done jsonb NOT NULL DEFAULT '[]', -- the ranges that are committed
            has_rows boolean NOT NULL DEFAULT false, -- rows were loaded, so an empty table has lost them
            watermark text, -- the bookmark that the load leads to; null until the load has begun, or if there is none
            columns jsonb, -- what is read of the source's table, as in Meltano's state; null until the load has begun
            run_id text, -- the last run that loaded it
            opened_at timestamptz NOT NULL DEFAULT now(), -- when the load was divided into parts
            finished_at timestamptz, -- when the part was complete
            PRIMARY KEY (source, stream, part)
        )
        """,
    ),
)


@dataclass(frozen=True)
class PartRow:
    """A part as the table has it."""

    number: int
    ranges: tuple[BlockRange, ...]
    done: tuple[BlockRange, ...]
    is_finished: bool
    has_rows: bool


@dataclass(frozen=True)
class SharedLoad:
    """A first load that several runs share.

    Attributes:
        has_begun: its watermark was taken.
        columns: what is read of the source's table, as `ReadColumns.to_json` gives it.
    """

    stream: str
    id: str
    table: str
    watermark: str | None
    columns: list[Any] | None
    parts: tuple[PartRow, ...]

    @property
    def has_begun(self) -> bool:
        """Whether its watermark was taken."""
        return self.columns is not None

    @property
    def is_complete(self) -> bool:
        """Whether all parts are loaded. What the table got since it was divided is not among them."""
        return all(part.is_finished for part in self.parts)

    @property
    def has_rows(self) -> bool:
        """Whether rows were loaded."""
        return any(part.has_rows for part in self.parts)

    @property
    def done(self) -> list[BlockRange]:
        """The loaded ranges."""
        return [blocks for part in self.parts for blocks in part.done]


@dataclass(frozen=True)
class LoadParts:
    """The table of parts in one schema, for one source."""

    schema: str
    source: str

    @property
    def _name(self) -> sql.Composable:
        return TABLE.in_statement(self.schema)

    def ensure(self, connection: Connection) -> None:
        """Create the table, or migrate it to the current version."""
        TABLE.ensure(connection, self.schema)

    def exist(self, connection: Connection) -> bool:
        """Return whether there is the table."""
        name = sql.Identifier(self.schema, TABLE.name).as_string(connection)
        row = connection.execute("select to_regclass(%s) is not null", [name]).fetchone()
        return bool(row and row[0])

    def open(
        self, connection: Connection, stream: str, table: str, *, load_id: str, parts: Sequence[tuple[Any, int]]
    ) -> None:
        """Begin a shared load. Each part has its ranges and their bytes."""
        for number, (ranges, bytes_) in enumerate(parts, start=1):
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} (source, stream, part, load_id, table_name, ranges, bytes) "
                    "VALUES (%s, %s, %s, %s, %s, %s, %s)"
                ).format(self._name),
                [self.source, stream, number, load_id, table, json.dumps(ranges), bytes_],
            )

    def close(self, connection: Connection, stream: str) -> None:
        """End the shared loads of a stream, if there are any: what is left of their parts can commit nothing more."""
        if self.exist(connection):
            connection.execute(sql.SQL("DELETE FROM {} WHERE stream = %s").format(self._name), [stream])

    def loads(self, connection: Connection) -> dict[str, SharedLoad]:
        """Return the shared loads by stream."""
        if not self.exist(connection):
            return {}
        rows = connection.execute(
            sql.SQL(
                "SELECT stream, load_id, table_name, watermark, columns, part, ranges, done, finished_at IS NOT NULL, "
                "has_rows FROM {} WHERE source = %s ORDER BY opened_at, stream, part"
            ).format(self._name),
            [self.source],
        ).fetchall()
        found: dict[str, SharedLoad] = {}
        for stream, load_id, table, watermark, columns, number, ranges, done, *facts in rows:
            part = PartRow(number, _ranges(ranges), _ranges(done), *facts)
            parts = (*(found[stream].parts if stream in found else ()), part)
            found[stream] = SharedLoad(stream, load_id, table, watermark, columns, parts)
        return found

    # for the target

    def begin(  # noqa: PLR0913 - each argument has a name
        self,
        connection: Connection,
        stream: str,
        part: LoadPart,
        *,
        run_id: str,
        watermark: str | None,
        empty: bool,
    ) -> None:
        """Note that a run loads a part. The first such run gives the load its watermark.

        Args:
            empty: the stream's table has no rows.

        Raises:
            LockLostError: the load has ended meanwhile, or another run has begun it.
            StateAheadError: the table has lost what other parts have loaded.
        """
        self._update(connection, stream, part, "run_id = %s", [run_id])
        if part.begins:
            columns = json.dumps(part.columns)
            begun = connection.execute(
                sql.SQL(
                    "UPDATE {} SET watermark = %s, columns = %s WHERE source = %s AND stream = %s "
                    # this run itself, if the connection broke while this was committed
                    "AND (columns IS NULL OR columns = %s::jsonb AND watermark IS NOT DISTINCT FROM %s)"
                ).format(self._name),
                [watermark, columns, self.source, stream, columns, watermark],
            )
            if not begun.rowcount:
                # it has read under a snapshot that the load's watermark does not know of
                raise LockLostError(_begun_by_another(stream))
        query = "SELECT min(table_name) FROM {} WHERE source = %s AND stream = %s AND has_rows"
        row = connection.execute(sql.SQL(query).format(self._name), [self.source, stream]).fetchone()
        table = row and row[0]
        if empty and table:
            msg = (
                f"Parts of the first load of {stream} were loaded, and {self.schema}.{table} is empty: their rows "
                f"would be missed. Begin that load again: `tidemark state rewind {stream} --to beginning`."
            )
            raise StateAheadError(msg)

    def add_range(
        self, connection: Connection, stream: str, part: LoadPart, blocks: BlockRange, *, has_rows: bool
    ) -> None:
        """Note a loaded block range, in the transaction that loads it.

        Raises:
            LockLostError: the load has ended meanwhile.
        """
        changes = "done = done || %s::jsonb, has_rows = has_rows OR %s"
        self._update(connection, stream, part, changes, [json.dumps([list(blocks)]), has_rows])

    def finish(self, connection: Connection, stream: str, part: LoadPart) -> None:
        """Note that a part is complete.

        Raises:
            LockLostError: the load has ended meanwhile.
        """
        self._update(connection, stream, part, "finished_at = coalesce(finished_at, now())", [])

    def _update(self, connection: Connection, stream: str, part: LoadPart, changes: str, values: list[Any]) -> None:
        done = connection.execute(
            sql.SQL("UPDATE {} SET {} WHERE source = %s AND stream = %s AND part = %s AND load_id = %s").format(
                self._name, sql.SQL(changes)
            ),
            [*values, self.source, stream, part.number, part.load_id],
        )
        if not done.rowcount:
            msg = (
                f"The first load of {stream} that several runs share has ended, or begun again: this run loads nothing "
                "more of it. Run this again."
            )
            raise LockLostError(msg)


def _begun_by_another(stream: str) -> str:
    return (
        f"Another run has begun the first load of {stream} that several runs share, at the same moment: this run loads "
        "nothing of it. Run this again."
    )


def _ranges(value: Any) -> tuple[BlockRange, ...]:
    return tuple((node, first, after) for node, first, after in value)
