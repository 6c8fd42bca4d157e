"""`_tidemark_runs`: the outcome of each stream in each run. The transactions that load the rows also count them.

A killed run can't record its end. The next run of the same stream does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.driver_errors import log_fields
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    import psycopg

    from singer_postgres.core.warehouse.connections import WarehouseConnector
    from singer_postgres.core.warehouse.row_counts import RowCounts

    Connection = psycopg.Connection[Any]

TABLE = SystemTable(
    "_tidemark_runs",
    (
        """
        -- One row per stream and run. Rows older than `history_days` (90) are deleted.
        -- Written by: the target, in the transactions that load the stream.
        -- Read by: `tidemark status`, `tidemark trace`, Airflow's page of streams, dbt's freshness check, the target.
        CREATE TABLE {} (
            source text NOT NULL, -- the source database: the identifier of its cluster, and its oid there
            stream text NOT NULL, -- the Singer stream, such as `public-orders`
            run_id text NOT NULL, -- the run, as all logs name it
            table_name text NOT NULL, -- the stream's table in this schema
            started_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- when the target began to load the stream
            ended_at timestamptz, -- when the stream was complete or had failed; null while it is being loaded
            outcome text NOT NULL DEFAULT 'running' -- running, succeeded, failed, or killed, which the next run notes
                CHECK (outcome IN ('running', 'succeeded', 'failed', 'killed')),
            rows_read bigint NOT NULL DEFAULT 0, -- rows that the target took from the tap
            rows_inserted bigint NOT NULL DEFAULT 0, -- rows that were new
            rows_updated bigint NOT NULL DEFAULT 0, -- rows that were there and differed
            rows_unchanged bigint NOT NULL -- rows that were there already and were not written
                GENERATED ALWAYS AS (greatest(rows_read - rows_inserted - rows_updated - rows_rejected, 0)) STORED,
            rows_deleted bigint NOT NULL DEFAULT 0, -- rows that were deleted or marked as deleted
            rows_rejected bigint NOT NULL DEFAULT 0, -- records that went to `_tidemark_rejects`
            bytes bigint NOT NULL DEFAULT 0, -- size of the files that were loaded
            bookmark_before text, -- the bookmark that the run started from; null where it read the stream whole
            bookmark_after text, -- the bookmark that it reached; null where it has none
            extracted_at timestamptz, -- the source's state that the warehouse now has; null for a backfill
            sync_started_at bigint, -- the value of `_sdc_sync_started_at` in the rows of this run
            lag interval GENERATED ALWAYS AS (ended_at - extracted_at) STORED, -- from reading the source to the end
            error text, -- why it failed; at most 2,000 characters
            PRIMARY KEY (source, stream, run_id)
        )
        """,
        """
        ALTER TABLE {}
            ADD COLUMN error_code text -- its code, as the reference lists them
        """,
    ),
)
# this run holds the stream's lock, so any other run that still says 'running' was killed
_KILLED = """
    UPDATE {} SET outcome = 'killed', ended_at = clock_timestamp()
    WHERE source = %(source)s AND stream = %(stream)s AND outcome = 'running' AND run_id <> %(run_id)s
"""
_ERROR_CHARACTERS = 2000


@dataclass(frozen=True)
class StreamRun:
    """One stream in one run: a row of the table."""

    schema: str
    source: str
    stream: str
    run_id: str
    table: str
    keep_days: float
    """0 keeps no history."""
    sync_started_at: int = 0
    """The value of `_sdc_sync_started_at` in the rows of this run."""

    def _execute(self, connection: Connection, statement: str, **values: Any) -> None:
        if not self.keep_days:
            return
        table = TABLE.in_statement(self.schema)
        own = {"source": self.source, "stream": self.stream, "run_id": self.run_id, "table_name": self.table}
        connection.execute(sql.SQL(statement).format(table), {**own, **values})

    def begin(self, connection: Connection, *, bookmark: str | None) -> None:
        """Note that the stream's load has begun."""
        self._execute(connection, _KILLED)
        self._execute(
            connection,
            "DELETE FROM {} WHERE source = %(source)s AND stream = %(stream)s "
            "AND started_at < now() - %(days)s * interval '1 day'",
            days=self.keep_days,
        )
        self._execute(
            connection,
            "INSERT INTO {} AS run (source, stream, run_id, table_name, bookmark_before, sync_started_at) "
            "VALUES (%(source)s, %(stream)s, %(run_id)s, %(table_name)s, %(bookmark)s, %(sync_started_at)s) "
            "ON CONFLICT (source, stream, run_id) DO UPDATE SET outcome = 'running', ended_at = NULL, "
            "error = NULL, error_code = NULL",
            bookmark=bookmark,
            sync_started_at=self.sync_started_at,
        )

    def count(self, connection: Connection, written: RowCounts, *, bytes_: int = 0) -> None:
        """Add the rows that the current transaction loads."""
        self._execute(
            connection,
            "UPDATE {} SET rows_read = rows_read + %(read)s, rows_inserted = rows_inserted + %(inserted)s, "
            "rows_updated = rows_updated + %(updated)s, rows_deleted = rows_deleted + %(deleted)s, "
            "rows_rejected = rows_rejected + %(rejected)s, bytes = bytes + %(bytes)s "
            "WHERE source = %(source)s AND stream = %(stream)s AND run_id = %(run_id)s",
            **vars(written),
            bytes=bytes_,
        )

    def end(self, connection: Connection, *, bookmark: str | None = None, extracted_at: str | None = None) -> None:
        """Note that the stream succeeded, in the transaction that completes it."""
        self._execute(
            connection,
            "UPDATE {} SET outcome = 'succeeded', ended_at = clock_timestamp(), bookmark_after = %(bookmark)s, "
            "extracted_at = %(extracted_at)s::timestamptz "
            "WHERE source = %(source)s AND stream = %(stream)s AND run_id = %(run_id)s",
            bookmark=bookmark,
            extracted_at=extracted_at,
        )

    def fail(self, warehouse: WarehouseConnector, error: BaseException) -> None:
        """Note that the stream failed, if the warehouse can be reached."""
        if not self.keep_days:
            return
        try:
            with warehouse.connect_once() as connection:
                TABLE.ensure(connection, self.schema)
                self._execute(connection, _KILLED)
                self._execute(
                    connection,
                    "INSERT INTO {} AS run (source, stream, run_id, table_name, outcome, ended_at, error, error_code) "
                    "VALUES (%(source)s, %(stream)s, %(run_id)s, %(table_name)s, 'failed', clock_timestamp(), "
                    "%(error)s, %(code)s) "
                    "ON CONFLICT (source, stream, run_id) DO UPDATE SET outcome = 'failed', "
                    "ended_at = excluded.ended_at, error = excluded.error, error_code = excluded.error_code",
                    error=str(error).replace("\0", "")[:_ERROR_CHARACTERS],
                    code=log_fields(error, side="warehouse")["error"]["code"],
                )
        except Exception as failed:  # noqa: BLE001 - the caller reports the error itself
            logging.getLogger("target-postgres").debug("The history could not be written: %s", failed)
