"""`_tidemark_reconciles`: the result of each stream's comparison, beside the history of its runs.

No comparison depends on it. If a result can't be recorded, a warning says so.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core.errors import SingerPostgresError, one_line
from singer_postgres.core.warehouse.system_tables import SystemTable
from tidemark.errors import TidemarkError
from tidemark.project import connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidemark.inspect.reconcile.pairing import Endpoints
    from tidemark.inspect.reconcile.result import ReconcileResult

TABLE = SystemTable(
    "_tidemark_reconciles",
    (
        """
        -- One row per stream and comparison. Rows older than `history_days` (90) are deleted.
        -- Written by: `tidemark reconcile`.
        -- Read by: Airflow's page of streams.
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
    ),
)
# the comparison must not wait long for a lock to record its result
_NO_LONG_WAIT = "set lock_timeout = '10s'"
_ERROR_CHARACTERS = 2000


class ReconcileHistory:
    """Records the result of each stream in one `tidemark reconcile`."""

    def __init__(self, ends: Endpoints, *, since: str | None, warn: Callable[[str], None]) -> None:
        """Prepare. This writes nothing yet.

        Args:
            since: the value of the replication key from which on rows are compared; None for all.
            warn: called once if results can't be recorded.
        """
        self._ends = ends
        self._since = since
        self._warn = warn
        self._run_id = os.environ.get("TIDEMARK_RUN_ID") or str(uuid.uuid4())
        self._kept = ends.configuration.history_days > 0

    def note(self, result: ReconcileResult) -> None:
        """Record a stream's result, and delete results that are older than the history is kept."""
        if not self._kept:
            return
        schema = self._ends.warehouse.default_target_schema
        try:
            with connections.connect(self._ends.warehouse) as connection:
                connection.execute(_NO_LONG_WAIT)
                TABLE.ensure(connection, schema)
                self._write(connection, sql.Identifier(schema, TABLE.name), result)
        except (psycopg.Error, SingerPostgresError, TidemarkError) as error:
            # further streams would fail for the same reason
            self._kept = False
            reason = one_line(error).rstrip(".")
            self._warn(f"The results are not recorded in {schema}.{TABLE.name}: {reason}.")

    def _write(self, connection: psycopg.Connection[Any], table: sql.Identifier, result: ReconcileResult) -> None:
        stream = {"source": self._ends.source_id, "stream": result.stream}
        connection.execute(
            sql.SQL(
                "DELETE FROM {} WHERE (source, stream) = ({}) AND compared_at < now() - {} * interval '1 day'"
            ).format(table, _literals(stream), sql.Literal(self._ends.configuration.history_days))
        )
        values = {**stream, "run_id": self._run_id, "since": self._since, **_counts(result)}
        names = sql.SQL(", ").join(map(sql.Identifier, values))
        connection.execute(sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(table, names, _literals(values)))


def _literals(values: dict[str, Any]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Literal, values.values()))


def _counts(result: ReconcileResult) -> dict[str, Any]:
    """Return the counts before the repair and the number of repaired rows, or the error."""
    if result.found is None:
        return {"error": (result.error or "").replace("\0", "")[:_ERROR_CHARACTERS]}
    there, here = result.found.rows
    missing, extra, different = result.found.counts
    done = result.repaired
    return {
        "rows_source": there,
        "rows_warehouse": here,
        "missing": missing,
        "different": different,
        "extra": extra,
        "pending": result.found.pending,
        "repaired": done and done.inserted + done.updated + done.deleted,
    }
