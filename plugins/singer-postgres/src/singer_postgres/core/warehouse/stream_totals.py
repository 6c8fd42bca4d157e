"""`_tidemark_stream_totals`: what all runs together did with each stream. Metrics read it, whatever the history keeps.

The transactions that load the rows also add them here, so a total never counts what was rolled back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    import psycopg

    from singer_postgres.core.warehouse.row_counts import RowCounts

    Connection = psycopg.Connection[Any]

TABLE = SystemTable(
    "_tidemark_stream_totals",
    (
        """
        -- One row per stream: what its runs did since this table exists, and its last success. Its numbers only grow.
        -- Written by: the target, in the transactions that load the stream; `tidemark run`, for streams that failed.
        -- Read by: `tidemark metrics`.
        CREATE TABLE {} (
            source text NOT NULL, -- the source database, as in `_tidemark_runs`
            stream text NOT NULL, -- the Singer stream
            rows_read bigint NOT NULL DEFAULT 0, -- rows that the target took from the tap
            rows_inserted bigint NOT NULL DEFAULT 0, -- rows that were new
            rows_updated bigint NOT NULL DEFAULT 0, -- rows that were there and differed
            rows_deleted bigint NOT NULL DEFAULT 0, -- rows that were deleted or marked as deleted
            rows_rejected bigint NOT NULL DEFAULT 0, -- records that went to `_tidemark_rejects`
            bytes bigint NOT NULL DEFAULT 0, -- size of the files that were loaded
            succeeded bigint NOT NULL DEFAULT 0, -- runs that succeeded, without backfills and repairs
            succeeded_at timestamptz, -- when the last run succeeded
            extracted_at timestamptz, -- the source's state that the last run over the whole stream read
            killed bigint NOT NULL DEFAULT 0, -- runs that were killed, which the next run notes
            failed jsonb NOT NULL DEFAULT '{{}}', -- how many runs failed, by the code of the error
            retries bigint NOT NULL DEFAULT 0, -- how often a part of the stream was read or loaded again
            schema_changes bigint NOT NULL DEFAULT 0, -- columns whose change in the source the warehouse followed
            PRIMARY KEY (source, stream)
        )
        """,
    ),
)


@dataclass(frozen=True)
class StreamTotals:
    """The totals of one stream: a row of the table."""

    schema: str
    source: str
    stream: str

    def add(self, connection: Connection, **numbers: int) -> None:
        """Add to some of the columns."""
        sums = sql.SQL(", ").join(sql.SQL("{0} = totals.{0} + excluded.{0}").format(sql.Identifier(n)) for n in numbers)
        columns = sql.SQL(", ").join(map(sql.Identifier, numbers))
        statement = sql.SQL(
            "INSERT INTO {} AS totals (source, stream, {}) VALUES (%s, %s, {}) ON CONFLICT (source, stream) "
            "DO UPDATE SET {}"
        ).format(TABLE.in_statement(self.schema), columns, sql.SQL(", ").join(map(sql.Literal, numbers.values())), sums)
        connection.execute(statement, [self.source, self.stream])

    def add_rows(self, connection: Connection, written: RowCounts, *, bytes_: int = 0) -> None:
        """Add rows that the current transaction loads."""
        self.add(connection, **{f"rows_{name}": rows for name, rows in vars(written).items()}, bytes=bytes_)

    def add_success(self, connection: Connection, *, extracted_at: str | None, retries: int) -> None:
        """Add a run that succeeded.

        Args:
            extracted_at: the source's state that the warehouse now has all of.
        """
        self.add(connection, succeeded=1, retries=retries)
        connection.execute(
            sql.SQL(
                "UPDATE {} SET succeeded_at = clock_timestamp(), "
                "extracted_at = coalesce(%s::timestamptz, extracted_at) WHERE source = %s AND stream = %s"
            ).format(TABLE.in_statement(self.schema)),
            [extracted_at, self.source, self.stream],
        )

    def add_failure(self, connection: Connection, code: str, *, retries: int = 0, killed: int = 0) -> None:
        """Add a failed run, and runs that were killed before it."""
        self.add(connection, retries=retries, killed=killed)
        connection.execute(
            sql.SQL(
                "UPDATE {} SET failed = failed || jsonb_build_object(%s::text, "
                "coalesce((failed ->> %s)::bigint, 0) + 1) WHERE source = %s AND stream = %s"
            ).format(TABLE.in_statement(self.schema)),
            [code, code, self.source, self.stream],
        )
