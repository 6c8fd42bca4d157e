"""The columns that each row has beside the source's: the Singer SDK's, and the id of the transaction that loaded it."""

from __future__ import annotations

from dataclasses import dataclass

from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.schema_changes import DELETED_AT, LOADED_XID

# Types and values as the Singer SDK documents them. The source's instant and the run's numbers are parameters; values
# that the server knows are expressions.
METADATA: dict[str, tuple[str, str]] = {
    "_sdc_extracted_at": ("timestamp with time zone", "{extracted_at}::timestamptz"),
    "_sdc_received_at": ("timestamp with time zone", "now()"),
    "_sdc_batched_at": ("timestamp with time zone", "now()"),
    DELETED_AT: ("timestamp with time zone", "NULL::timestamptz"),
    "_sdc_sequence": ("bigint", "{sequence}::bigint"),
    "_sdc_table_version": ("bigint", "NULL::bigint"),
    "_sdc_sync_started_at": ("bigint", "{sync_started_at}::bigint"),
    LOADED_XID: ("xid8", "pg_current_xact_id()"),
}


# Columns of LOG_BASED streams that ask for them: the transaction that changed the row last. The values are those of
# change_columns.
COMMITS: dict[str, tuple[str, str]] = {
    "_sdc_lsn": ("bigint", "{column}"),
    "_sdc_committed_at": (
        "timestamp with time zone",
        # each product is exact
        (
            "('2000-01-01 00:00:00+00'::timestamptz + {column} / 1000000 * interval '1 second' "
            "+ {column} % 1000000 * interval '1 microsecond')"
        ),
    ),
}


@dataclass(frozen=True)
class Stamp:
    """The values of a chunk's metadata columns that the server doesn't know.

    Attributes:
        extracted_at: the instant of the snapshot that the rows were read under.
        sequence: milliseconds since the epoch at which the chunk was queued.
        sync_started_at: milliseconds since the epoch at which this target started.
    """

    extracted_at: str
    sequence: int
    sync_started_at: int

    def expressions(self) -> dict[str, sql.Composable]:
        """Return the SQL of each metadata column's value."""
        values = {name: sql.Literal(value) for name, value in vars(self).items()}
        return {name: sql.SQL(expression).format(**values) for name, (_, expression) in METADATA.items()}
