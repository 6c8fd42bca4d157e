"""`_tidemark_state`: what the warehouse holds of each stream, committed together with the rows.

Meltano's state says where the next run begins. This table says whether the warehouse has every row before that point.
If Meltano's state is ahead (a restored warehouse, a truncated table, another source under the same name), a run would
skip rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.bookmark_order import reaches
from singer_postgres.core.errors import LockLostError
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.loaded_columns import LoadedColumns
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from singer_postgres.core.wire import BatchOrigin, BlockRange, Table

TABLE = SystemTable(
    "_tidemark_state",
    (
        """
        -- One row per stream: how far the warehouse has it.
        -- Written by: the target, in the transactions that load the stream.
        -- Read by: the target, `tidemark state`, Airflow's page of streams, dbt (to know a raw schema by it).
        CREATE TABLE {} (
            source text NOT NULL, -- the source database, as in `_tidemark_runs`
            stream text NOT NULL, -- the Singer stream
            table_name text NOT NULL, -- the stream's table in this schema
            bookmark text, -- the replication key up to which the stream is complete; null if unknown
            first_load jsonb NOT NULL DEFAULT '[]', -- ranges of disk blocks that an unfinished first load has committed
            has_rows boolean NOT NULL DEFAULT false, -- rows were loaded, so an empty table has lost them
            extracted_at timestamptz, -- the source's state that the warehouse has all of
            loaded_at timestamptz NOT NULL DEFAULT now(), -- when the row was last written
            PRIMARY KEY (source, stream)
        )
        """,
        """
        ALTER TABLE {}
            ADD COLUMN run_id text, -- the run that loads the stream; no other commits anything more
            ADD COLUMN shape jsonb -- the columns and settings with which the source's table was read
        """,
        """
        ALTER TABLE {}
            ADD COLUMN position pg_lsn -- the source's WAL position when the stream was read
        """,
        """
        ALTER TABLE {}
            ADD COLUMN slot text, -- the replication slot whose changes come to the stream; null for none
            ADD COLUMN is_loading boolean -- its first load is not complete, so those changes wait in a table beside it
        """,
        """
        ALTER TABLE {}
            ADD COLUMN repair text -- why rows may differ from the source's although it follows its log, or null
        """,
        """
        ALTER TABLE {}
            ADD COLUMN key_pending boolean NOT NULL DEFAULT false -- its table has no key before its first load ends
        """,
    ),
)


@dataclass(frozen=True)
class LoadedState:
    """What the warehouse holds of one source's stream.

    Attributes:
        table: the name of the stream's table in the warehouse.
        bookmark: the warehouse has all rows up to here; None before the first full load, and for full-table streams.
        first_load: the loaded block ranges of an unfinished first load.
        has_rows: rows have been loaded. If the table is empty now, it has lost them.
        columns: the columns that were read from the source's table, as `LoadedColumns.to_json` gives them.
        slot: the replication slot whose changes keep the stream up to date, after its first load.
    """

    table: str
    bookmark: str | None = None
    first_load: tuple[BlockRange, ...] = ()
    has_rows: bool = False
    columns: dict[str, Any] | None = None
    slot: str | None = None

    def in_table(self, *, empty: bool) -> LoadedState:
        """Treat nothing as loaded if the table was truncated or recreated."""
        return LoadedState(self.table) if empty and self.has_rows else self

    def misses(self, start: str | None, resumed: Sequence[BlockRange] = (), end: str | None = None) -> str | None:
        """Say which rows a run from `start` to `end` would miss; None if it misses nothing.

        Args:
            resumed: block ranges of a first load that this run doesn't read again.
        """
        if start is not None and (self.bookmark is None or not reaches(self.bookmark, start)):
            return "the rows between"
        # a run that was killed after the stream's last commit left a Meltano state that knows less than this table
        complete = self.slot is not None or (
            self.bookmark is not None and end is not None and reaches(self.bookmark, end)
        )
        if not complete and not all(_covers(self.first_load, block_range) for block_range in resumed):
            return "parts of its first load"
        return None


@dataclass(frozen=True)
class StateTable:
    """The state table of one schema."""

    schema: str

    @property
    def _name(self) -> sql.Composable:
        return sql.Identifier(self.schema, TABLE.name)

    @property
    def in_statement(self) -> sql.Composable:
        """The table's name for statements with parameters."""
        return TABLE.in_statement(self.schema)

    def ensure(self, connection: psycopg.Connection[Any]) -> None:
        """Create the table, or migrate it to the current version."""
        TABLE.ensure(connection, self.schema)

    def columns(self, connection: psycopg.Connection[Any], stream: str, table: Table) -> LoadedColumns | None:
        """Return the columns that the last run read from the source's table; None if unknown."""
        row = connection.execute(
            sql.SQL("SELECT shape FROM {} WHERE source = %s AND stream = %s AND table_name = %s").format(
                self.in_statement
            ),
            [table.source, stream, table.name],
        ).fetchone()
        return LoadedColumns.from_json(row[0]) if row and row[0] else None

    def claim_for_run(  # noqa: PLR0913 - each argument has a name
        self,
        connection: psycopg.Connection[Any],
        stream: str,
        table: Table,
        *,
        run_id: str,
        columns: LoadedColumns,
        lsn: str | None,
    ) -> None:
        """Note which run loads the stream from now on, and which of the source's columns it reads.

        If another run still loads the stream after losing its lock, it can commit nothing more: see `assert_owner`.
        """
        connection.execute(
            sql.SQL(
                "INSERT INTO {} AS state (source, stream, table_name, run_id, shape, position) "
                "VALUES (%(source)s, %(stream)s, %(table)s, %(run)s, %(shape)s, %(lsn)s) "
                "ON CONFLICT (source, stream) DO UPDATE SET "
                "run_id = excluded.run_id, shape = excluded.shape, position = excluded.position, "
                "slot = CASE WHEN %(follows)s THEN state.slot END, "
                "repair = CASE WHEN %(follows)s THEN state.repair END"
            ).format(self.in_statement),
            {
                "source": table.source,
                "stream": stream,
                "table": table.name,
                "run": run_id,
                "shape": json.dumps(columns.to_json()),
                "lsn": lsn,
                "follows": table.method == "LOG_BASED",
            },
        )

    def key_is_pending(self, connection: psycopg.Connection[Any], stream: str, table: Table) -> bool:
        """Return whether a first load has created the stream's table without its key, and has not built it yet."""
        row = connection.execute(
            sql.SQL("SELECT key_pending FROM {} WHERE source = %s AND stream = %s AND table_name = %s").format(
                self.in_statement
            ),
            [table.source, stream, table.name],
        ).fetchone()
        return row == (True,)

    def set_key_pending(self, connection: psycopg.Connection[Any], stream: str, table: Table, *, pending: bool) -> None:
        """Note whether the stream's table still needs its key."""
        connection.execute(
            sql.SQL("UPDATE {} SET key_pending = %s WHERE source = %s AND stream = %s AND key_pending <> %s").format(
                self.in_statement
            ),
            [pending, table.source, stream, pending],
        )

    def set_columns(
        self, connection: psycopg.Connection[Any], stream: str, table: Table, columns: LoadedColumns
    ) -> None:
        """Note which of the source's columns the table has, once all their rows are loaded."""
        connection.execute(
            sql.SQL("UPDATE {} SET shape = %s WHERE source = %s AND stream = %s").format(self.in_statement),
            [json.dumps(columns.to_json()), table.source, stream],
        )

    def assert_owner(self, connection: psycopg.Connection[Any], stream: str, table: Table, *, run_id: str) -> str:
        """Check, just before a commit, that no other run has begun to load the stream.

        Returns:
            The transaction's id. `was_committed` takes it if the connection breaks during the commit.

        Raises:
            RunError: another run has begun.
        """
        row = connection.execute(
            sql.SQL(
                "SELECT run_id, pg_current_xact_id()::text FROM {} WHERE source = %s AND stream = %s FOR SHARE"
            ).format(self.in_statement),
            [table.source, stream],
        ).fetchone()
        if row is None or row[0] != run_id:
            msg = (
                f"The lock that keeps other runs out of {self.schema}.{table.name} was lost, and another run has begun "
                "to load it. This run loads nothing more. If a transaction pooler is in between, connect past it."
            )
            raise LockLostError(msg)
        return str(row[1])

    def loaded_state(
        self, connection: psycopg.Connection[Any], source: str, stream: str | None = None
    ) -> dict[str, LoadedState]:
        """Return the loaded state of a source, or of one of its streams, by stream. The state table must exist."""
        query = (
            "SELECT stream, table_name, bookmark, first_load, has_rows, shape, CASE WHEN NOT is_loading THEN slot END "
            "FROM {} WHERE source = %s"
        )
        parameters = [source]
        if stream is not None:
            query += " AND stream = %s"
            parameters.append(stream)
        rows = connection.execute(sql.SQL(query).format(self.in_statement), parameters).fetchall()
        return {
            stream: LoadedState(table, bookmark, tuple(tuple(each) for each in first_load), has_rows, columns, slot)
            for stream, table, bookmark, first_load, has_rows, columns, slot in rows
        }

    def begin(self, connection: psycopg.Connection[Any], stream: str, table: Table) -> None:
        """Note that this run reads the stream from its beginning."""
        connection.execute(
            sql.SQL("UPDATE {} SET first_load = '[]' WHERE source = %s AND stream = %s AND first_load <> '[]'").format(
                self.in_statement
            ),
            [table.source, stream],
        )

    def add_range(
        self, connection: psycopg.Connection[Any], stream: str, table: Table, blocks: BlockRange, *, has_rows: bool
    ) -> None:
        """Note a loaded block range of a first load, in the transaction that loads it."""
        connection.execute(
            sql.SQL(
                "UPDATE {} SET first_load = first_load || %s::jsonb, has_rows = has_rows OR %s, loaded_at = now() "
                "WHERE source = %s AND stream = %s"
            ).format(self.in_statement),
            [json.dumps([list(blocks)]), has_rows, table.source, stream],
        )

    def set_ranges(
        self,
        connection: psycopg.Connection[Any],
        source: str,
        stream: str,
        ranges: Sequence[BlockRange],
        *,
        has_rows: bool,
    ) -> None:
        """Note what several runs have loaded of a first load. They own the stream no more."""
        connection.execute(
            sql.SQL(
                "UPDATE {} SET first_load = %s, has_rows = has_rows OR %s, loaded_at = now(), run_id = NULL "
                "WHERE source = %s AND stream = %s"
            ).format(self.in_statement),
            [json.dumps([list(blocks) for blocks in ranges]), has_rows, source, stream],
        )

    def finish(
        self, connection: psycopg.Connection[Any], stream: str, table: Table, origin: BatchOrigin, *, has_rows: bool
    ) -> None:
        """Note that the stream is complete up to the `end` of `origin`. Doing so twice writes nothing."""
        connection.execute(
            sql.SQL(
                """
                INSERT INTO {} AS state (source, stream, table_name, bookmark, extracted_at, position, has_rows)
                VALUES (%(source)s, %(stream)s, %(table)s, %(bookmark)s, %(extracted_at)s, %(position)s, %(has_rows)s)
                ON CONFLICT (source, stream) DO UPDATE SET
                    table_name = excluded.table_name, bookmark = excluded.bookmark, first_load = '[]',
                    extracted_at = excluded.extracted_at, position = excluded.position, loaded_at = now(),
                    has_rows = state.has_rows OR excluded.has_rows
                WHERE (state.table_name, state.bookmark, state.first_load, state.extracted_at)
                    IS DISTINCT FROM (excluded.table_name, excluded.bookmark, '[]'::jsonb, excluded.extracted_at)
                    OR (excluded.has_rows AND NOT state.has_rows)
                """
            ).format(self.in_statement),
            {
                "source": table.source,
                "stream": stream,
                "table": table.name,
                "bookmark": origin.end,
                "extracted_at": origin.snapshot_at or None,
                "position": origin.lsn,
                "has_rows": has_rows,
            },
        )

    def backfilled(
        self, connection: psycopg.Connection[Any], stream: str, table: Table, origin: BatchOrigin, *, has_rows: bool
    ) -> None:
        """Note that rows of the stream were read again. The bookmark stays as it is."""
        connection.execute(
            sql.SQL(
                "UPDATE {} SET has_rows = has_rows OR %s, loaded_at = now(), "
                # `state_ahead.refuse` compares this with the source's clock
                "extracted_at = greatest(extracted_at, %s::timestamptz) WHERE source = %s AND stream = %s"
            ).format(self.in_statement),
            [has_rows, origin.snapshot_at or None, table.source, stream],
        )


def _covers(loaded: Sequence[BlockRange], wanted: BlockRange) -> bool:
    """Return whether the ranges in `loaded` together cover all of `wanted`."""
    node, at, after = wanted
    for other, first, end in sorted(loaded, key=lambda r: (r[0], r[1])):
        if other == node and first <= at:
            if end is None:
                return True
            at = max(at, end)
            if after is not None and at >= after:
                return True
    return False
