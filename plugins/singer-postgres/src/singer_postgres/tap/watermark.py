"""The watermark: how far a stream is complete once it has been read.

A transaction stamps its rows with its start, and may commit after one that began later was read. So the bookmark of a
stream keyed by `timestamptz` is not the newest stamp seen but an instant before which no transaction was still open
when the snapshot was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2 import sql

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.tap.relations import Column
    from singer_postgres.tap.select import Selection

# a transaction's start is fixed shortly before other sessions can see it
LOOKBACK_FLOOR_S = 5

# least(now(), …) in a transaction of its own: now() is taken before the scan, and an open transaction that the scan
# misses began after it. Other types of backends than these write, or may.
_HORIZON = """
    select least(now(), (
        select min(xact_start) from pg_catalog.pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
            and backend_type is distinct from 'autovacuum worker' and backend_type is distinct from 'walsender'
            -- our own read-only sessions
            and not (application_name = current_setting('application_name') and backend_xid is null)
    ), (select min(prepared) from pg_catalog.pg_prepared_xacts where database = current_database()))
"""


# an instant as ISO 8601 in UTC, whatever the session's settings
ISO = """to_char({} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def horizon(connection: Connection) -> str:
    """Return the start of the oldest transaction that is open in this database, or now; ISO 8601 in UTC.

    The connection must be in autocommit, and the stream's snapshot be taken after this.
    """
    with connection.cursor() as cursor:
        cursor.execute("select " + ISO.format(f"({_HORIZON})"))
        row = cursor.fetchone()
    assert row
    return str(row[0])


@dataclass(frozen=True)
class ReplicationKey:
    """A stream's replication key, and the conditions that follow from a bookmark."""

    column: Column
    lookback_s: float

    @property
    def is_instant(self) -> bool:
        """Whether the key's values are instants, which transactions' starts can be compared with."""
        return (self.column.landing.type or "").startswith("timestamp") and (self.column.landing.type or "").endswith(
            "with time zone"
        )

    @property
    def _is_timestamp(self) -> bool:
        return (self.column.landing.type or "").startswith("timestamp")

    def bound(self, start: str) -> sql.Composable:
        """Return the condition of the rows to read after bookmark `start`. Rows that have no stamp are among them."""
        name = sql.Identifier(self.column.name)
        value = sql.SQL("{}::{}").format(sql.Literal(start), sql.SQL(self.column.declared))
        if self._is_timestamp:
            lookback = max(self.lookback_s, LOOKBACK_FLOOR_S)
            value = sql.SQL("({} - {}::interval)").format(value, sql.Literal(f"{lookback} seconds"))
        bound = sql.SQL("{} >= {}").format(name, value)
        return bound if self.column.not_null else sql.SQL("({} OR {} IS NULL)").format(bound, name)

    def largest(self, connection: Connection, selection: Selection, bound: sql.Composable | None) -> str | None:
        """Return the largest value that the snapshot of `connection` holds, as text; None if it holds none."""
        name = sql.Identifier(self.column.name)
        conditions = [
            sql.SQL("{} IS NOT NULL").format(name),
            *(sql.SQL(f"({clause}\n)") for clause in selection.where),
            *([bound] if bound else []),
        ]
        # not max(): types such as uuid have an order and no max
        query = sql.SQL("SELECT {name}::text FROM {table} WHERE {conditions} ORDER BY {name} DESC LIMIT 1").format(
            name=name,
            table=sql.Identifier(selection.relation.schema, selection.relation.name),
            conditions=sql.SQL(" AND ").join(conditions),
        )
        with connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
        return None if row is None else str(row[0])
