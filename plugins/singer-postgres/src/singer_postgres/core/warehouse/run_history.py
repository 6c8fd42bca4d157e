"""`_tidemark_runs`: the outcome of each stream in each run. The transactions that load the rows also count them.

A killed run can't record its end. The next run of the same stream does.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from singer_postgres.core.driver_errors import log_fields
from singer_postgres.core.errors import BusyError, LockLostError
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse import stream_totals
from singer_postgres.core.warehouse.row_counts import RowCounts
from singer_postgres.core.warehouse.stream_totals import StreamTotals
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    import psycopg

    from singer_postgres.core.warehouse.connections import WarehouseConnector

    Connection = psycopg.Connection[Any]

TABLE = SystemTable(
    "_tidemark_runs",
    (
        """
        -- One row per stream and run. Rows older than `history_days` (90) are deleted.
        -- Written by: the target, in the transactions that load the stream.
        -- Read by: `tidemark status`, `trace` and `metrics`, Airflow's page of streams, dbt's freshness check, target.
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
        # the index serves metrics and the deletion of old rows
        """
        ALTER TABLE {0}
            ADD COLUMN retries integer NOT NULL DEFAULT 0, -- how often a part of the stream was read or loaded again
            ADD COLUMN seconds_reading float8, -- how long parallel workers read it in the source, added up
            ADD COLUMN seconds_copying float8, -- how long they copied it into the warehouse
            ADD COLUMN seconds_merging float8, -- how long they merged it into its table
            ADD COLUMN held_by text, -- what held the bookmark back: an open transaction, or what may hide one
            ADD COLUMN held_seconds float8; -- for how long it had done so when the source was read
        CREATE INDEX ON {0} (source, stream, started_at DESC);
        """,
        # null where it is not known, as for streams that were sent as records
        """
        ALTER TABLE {}
            ADD COLUMN source_bytes bigint, -- rows that the source sent; what was read again counts again
            ADD COLUMN source_buffers_hit bigint, -- pages that our sessions found in the source's memory
            ADD COLUMN source_buffers_read bigint, -- pages that the source had to fetch for them from its system
            ADD COLUMN source_wal_bytes bigint, -- WAL that reading wrote in the source; only PostgreSQL 18 counts it
            ADD COLUMN snapshot_seconds float8, -- the longest time for which a snapshot of the source was held
            ADD COLUMN seconds_paused float8 -- how long workers paused to stay below `max_source_mb_per_s`
        """,
    ),
)
# This run has the stream alone, so any other run that still says 'running' was killed; or it has loaded its parts of a
# first load, which this run completes, or replaces.
_END_OTHERS = """
    UPDATE {} SET outcome = %(outcome)s, ended_at = coalesce(ended_at, clock_timestamp())
    WHERE source = %(source)s AND stream = %(stream)s AND run_id <> %(run_id)s
        AND outcome = 'running' AND (ended_at IS NULL) = (%(outcome)s = 'killed')
"""
# Runs of one id may end several times: the parts of a first load, or the two steps of a LOG_BASED stream.
_SUMS = sql.SQL(
    ", ".join(
        f"{name} = coalesce({name} + %({name})s, %({name})s, {name})"
        for name in (
            *("seconds_reading", "seconds_copying", "seconds_merging", "seconds_paused"),
            *("source_bytes", "source_buffers_hit", "source_buffers_read", "source_wal_bytes"),
        )
    )
)
_ERROR_CHARACTERS = 2000
# what the tap reports of what reading cost the source
COSTS = (
    "source_bytes",
    "source_buffers_hit",
    "source_buffers_read",
    "source_wal_bytes",
    "snapshot_seconds",
    "seconds_paused",
)


@dataclass(frozen=True)
class Work:
    """What a successful run did beside its rows.

    Attributes:
        retries: how often a part of the stream was read or loaded again.
        seconds_reading, seconds_copying, seconds_merging: how long parallel workers did so, added up.
        held_by: what held the bookmark back when the source was read; None if nothing did.
        held_seconds: for how long it had done so by then.
        source_bytes, source_buffers_hit, source_buffers_read, source_wal_bytes, snapshot_seconds, seconds_paused: what
            reading cost the source; None for what is not known.
    """

    retries: int = 0
    seconds_reading: float | None = None
    seconds_copying: float | None = None
    seconds_merging: float | None = None
    held_by: str | None = None
    held_seconds: float | None = None
    source_bytes: int | None = None
    source_buffers_hit: int | None = None
    source_buffers_read: int | None = None
    source_wal_bytes: int | None = None
    snapshot_seconds: float | None = None
    seconds_paused: float | None = None


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
    is_part: bool = False
    """The run loads parts of a first load, and others load further parts at the same time. It stays 'running', with an
    end, until a run completes the load."""

    @property
    def totals(self) -> StreamTotals:
        """What all runs together did with the stream."""
        return StreamTotals(self.schema, self.source, self.stream)

    def ensure(self, connection: Connection) -> None:
        """Create the tables of the history and of the totals, or migrate them to the current version."""
        stream_totals.TABLE.ensure(connection, self.schema)
        if self.keep_days:
            TABLE.ensure(connection, self.schema)

    def _execute(self, connection: Connection, statement: str, **values: Any) -> int:
        """Run a statement, unless no history is kept, and return the number of its rows."""
        if not self.keep_days:
            return 0
        table = TABLE.in_statement(self.schema)
        own = {"source": self.source, "stream": self.stream, "run_id": self.run_id, "table_name": self.table}
        return connection.execute(sql.SQL(statement).format(table, sums=_SUMS), {**own, **values}).rowcount

    def begin(self, connection: Connection, *, bookmark: str | None) -> None:
        """Note that the stream's load has begun."""
        killed = 0 if self.is_part else self._end_others(connection)
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
            # another part may have failed; the run that completes the load has all of them
            "error = NULL, error_code = NULL WHERE NOT (%(is_part)s AND run.outcome = 'failed')",
            bookmark=bookmark,
            is_part=self.is_part,
            sync_started_at=self.sync_started_at,
        )
        # with 0, the row is there from the first run on, and so are its metrics
        self.totals.add(connection, killed=killed)

    def _end_others(self, connection: Connection) -> int:
        """Write how runs ended that could not do so, and return how many of them were killed."""
        self._execute(connection, _END_OTHERS, outcome="succeeded")
        return self._execute(connection, _END_OTHERS, outcome="killed")

    def count(self, connection: Connection, written: RowCounts, *, bytes_: int = 0, staged: bool = False) -> None:
        """Add the rows that the current transaction loads.

        Args:
            staged: the rows wait in a stage, so the totals don't have them yet.
        """
        self._execute(
            connection,
            "UPDATE {} SET rows_read = rows_read + %(read)s, rows_inserted = rows_inserted + %(inserted)s, "
            "rows_updated = rows_updated + %(updated)s, rows_deleted = rows_deleted + %(deleted)s, "
            "rows_rejected = rows_rejected + %(rejected)s, bytes = bytes + %(bytes)s "
            "WHERE source = %(source)s AND stream = %(stream)s AND run_id = %(run_id)s",
            **vars(written),
            bytes=bytes_,
        )
        self.totals.add_rows(connection, RowCounts() if staged else written, bytes_=bytes_)

    def end(
        self,
        connection: Connection,
        *,
        bookmark: str | None = None,
        extracted_at: str | None = None,
        work: Work | None = None,
        whole: bool = True,
    ) -> None:
        """Note that the stream succeeded, or that a part is loaded, in the transaction that completes it.

        Args:
            whole: false for a backfill or a repair, which say nothing about how fresh the stream is.
        """
        work = work or Work()
        self._execute(
            connection,
            "UPDATE {} SET outcome = CASE WHEN %(is_part)s THEN outcome ELSE 'succeeded' END, "
            "ended_at = clock_timestamp(), bookmark_after = %(bookmark)s, "
            "extracted_at = %(extracted_at)s::timestamptz, retries = retries + %(retries)s, "
            "held_by = %(held_by)s, held_seconds = %(held_seconds)s, "
            "snapshot_seconds = greatest(snapshot_seconds, %(snapshot_seconds)s), {sums} "
            "WHERE source = %(source)s AND stream = %(stream)s AND run_id = %(run_id)s",
            bookmark=bookmark,
            extracted_at=extracted_at,
            is_part=self.is_part,
            **asdict(work),
        )
        if not whole:
            self.totals.add(connection, retries=work.retries)
            return
        if extracted_at is None and bookmark is None:
            # records don't say when they were read, but it was after this run began
            extracted_at = datetime.fromtimestamp(self.sync_started_at / 1000, UTC).isoformat()
        self.totals.add_success(connection, extracted_at=extracted_at, retries=work.retries)

    def fail(self, warehouse: WarehouseConnector, error: BaseException, *, retries: int = 0) -> None:
        """Note that the stream failed, if the warehouse can be reached."""
        try:
            with warehouse.connect_once() as connection:
                code = log_fields(error, side="warehouse")["error"]["code"]
                # with these, another run has the stream's lock; those of other parts share it
                alone = not (self.is_part or isinstance(error, BusyError | LockLostError))
                self.record_failure(connection, str(error), code, alone=alone, retries=retries)
        except Exception as failed:  # noqa: BLE001 - the caller reports the error itself
            logging.getLogger("target-postgres").debug("The history could not be written: %s", failed)

    def record_failure(self, connection: Connection, error: str, code: str, *, alone: bool, retries: int = 0) -> None:
        """Note that the stream failed, and why.

        Args:
            alone: this run holds the stream's lock, so any other that still seems to run was killed.
        """
        self.ensure(connection)
        with connection.transaction():
            # the totals come last, as in the transactions that count rows
            killed = self._end_others(connection) if alone else 0
            self._execute(
                connection,
                "INSERT INTO {} AS run (source, stream, run_id, table_name, outcome, ended_at, error, error_code, "
                "retries) VALUES (%(source)s, %(stream)s, %(run_id)s, %(table_name)s, 'failed', clock_timestamp(), "
                "%(error)s, %(code)s, %(retries)s) "
                "ON CONFLICT (source, stream, run_id) DO UPDATE SET outcome = 'failed', "
                "ended_at = excluded.ended_at, error = excluded.error, error_code = excluded.error_code, "
                "retries = run.retries + excluded.retries",
                error=error.replace("\0", "")[:_ERROR_CHARACTERS],
                code=code,
                retries=retries,
            )
            self.totals.add_failure(connection, code, retries=retries, killed=killed)
