"""`_tidemark_reconciles`: the result of each stream's comparison, beside the history of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    import psycopg

TABLE = SystemTable(
    "_tidemark_reconciles",
    (
        """
        -- One row per stream and comparison. Rows older than `history_days` (90) are deleted.
        -- Written by: `tidemark reconcile`.
        -- Read by: `tidemark metrics`, Airflow's page of streams.
        CREATE TABLE {} (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- a number, in the order of the comparisons
            source text NOT NULL, -- the source database, as in `_tidemark_runs`
            stream text NOT NULL, -- the Singer stream
            run_id text NOT NULL, -- the run of the comparison, as all logs name it
            compared_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- when it ended
            since text, -- the value of `--since`; null if all rows were compared
            rows_source bigint, -- rows that the source has
            rows_warehouse bigint, -- rows that the warehouse has, without those marked as deleted
            missing bigint, -- rows that only the source has
            different bigint, -- rows that both have, with other values
            extra bigint, -- rows that only the warehouse has
            pending bigint, -- rows that the next run will load, which count as no difference
            repaired bigint, -- rows that `--repair` wrote; null without it
            error text -- why the stream could not be compared; the counts are null then
        )
        """,
        # for metrics, which look for each stream's latest
        "CREATE INDEX ON {} (source, stream, compared_at DESC)",
    ),
)


def record(connection: psycopg.Connection[Any], schema: str, result: dict[str, Any], *, keep_days: float) -> None:
    """Record the result of one stream's comparison, and delete the stream's results that are older than `keep_days`.

    Args:
        schema: the schema of the raw tables.
        result: column names and values, with `source` and `stream` among them.

    Raises:
        SingerPostgresError: the table can't be created, or a newer release made it.
    """
    TABLE.ensure(connection, schema)
    table = sql.Identifier(schema, TABLE.name)
    connection.execute(
        sql.SQL(
            "DELETE FROM {} WHERE source = {} AND stream = {} AND compared_at < now() - {} * interval '1 day'"
        ).format(table, sql.Literal(result["source"]), sql.Literal(result["stream"]), sql.Literal(keep_days))
    )
    names = sql.SQL(", ").join(map(sql.Identifier, result))
    values = sql.SQL(", ").join(map(sql.Literal, result.values()))
    connection.execute(sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(table, names, values))
