"""Records the results of a comparison, which never depends on that: if one can't be recorded, a warning says so."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core.errors import SingerPostgresError, one_line
from singer_postgres.core.warehouse import reconcile_history
from tidemark.errors import TidemarkError
from tidemark.project import connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidemark.inspect.reconcile.pairing import Endpoints
    from tidemark.inspect.reconcile.result import ReconcileResult

# the comparison must not wait long for a lock to record its result
_NO_LONG_WAIT = "set lock_timeout = '10s'"
_ERROR_CHARACTERS = 2000


class ReconcileRecorder:
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
                reconcile_history.record(
                    connection, schema, self._row(result), keep_days=self._ends.configuration.history_days
                )
        except (psycopg.Error, SingerPostgresError, TidemarkError) as error:
            # further streams would fail for the same reason
            self._kept = False
            reason = one_line(error).rstrip(".")
            self._warn(f"The results are not recorded in {schema}.{reconcile_history.TABLE.name}: {reason}.")

    def _row(self, result: ReconcileResult) -> dict[str, Any]:
        stream = {"source": self._ends.source_id, "stream": result.stream}
        return {**stream, "run_id": self._run_id, "since": self._since, **_counts(result)}


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
