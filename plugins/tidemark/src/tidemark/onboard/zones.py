"""Suggests the time zone of replication keys that have none, by comparing their newest value with the clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from tidemark.onboard import cost
from tidemark.onboard.sample import READING
from tidemark.onboard.stamps import has_zone, is_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from tidemark.onboard.source_tables import SourceTable

# a newest value of this age, read in the right zone, is fresh enough to tell zones apart
_FRESH_S = 1800
_NEWEST = """
    select zone, extract(epoch from now() - newest at time zone zone)::float8
    from (select max({column}) as newest from {table} where {column} < 'infinity') one, unnest(%s::text[]) zone
"""
# the zone of sessions that set none: the newest `set` is ours
_SERVER_ZONE = "select reset_val from pg_catalog.pg_settings where name = 'TimeZone'"


@dataclass(frozen=True)
class ZoneHint:
    """What the data suggests for a column without a time zone.

    Attributes:
        zone: a zone in which the newest value is fresh; None if the data tells nothing.
        text: the suggestion in words.
        tells: the data tells something about the zone.
    """

    zone: str | None
    text: str
    tells: bool = True


def hints(connection: psycopg.Connection[Any], tables: Iterable[tuple[SourceTable, str]]) -> dict[str, ZoneHint]:
    """Return hints by stream, for replication keys without a time zone. Each table is read in a transaction of its own.

    Columns whose newest value takes a long scan are not looked at.
    """
    found: dict[str, ZoneHint] = {}
    row = connection.execute(_SERVER_ZONE).fetchone()
    server = str(row[0]) if row else "UTC"
    zones = list(dict.fromkeys(["UTC", server]))
    for table, name in tables:
        column = table.column(name)
        if not is_timestamp(column) or has_zone(column):
            continue
        ages: dict[str, float] = {}
        if name in table.indexed or cost.is_cheap(table):
            query = sql.SQL(_NEWEST).format(column=sql.Identifier(name), table=sql.Identifier(table.schema, table.name))
            try:
                with connection.transaction():
                    connection.execute(READING)
                    ages = {zone: age for zone, age in connection.execute(query, [zones]) if age is not None}
            except (errors.QueryCanceled, errors.LockNotAvailable, errors.InsufficientPrivilege):
                ages = {}
        found[table.stream] = hint(ages, server)
    return found


def hint(ages: dict[str, float], server: str) -> ZoneHint:
    """Judge the newest value's age in seconds, by the zone that it is taken in. An age below 0 lies in the future."""
    fresh = [zone for zone, age in ages.items() if -1 <= age <= _FRESH_S]
    if len(fresh) == 1 or (fresh and server == "UTC"):
        return ZoneHint(fresh[0], f"the newest value is of this hour if its zone is {fresh[0]}")
    if fresh:
        return ZoneHint(server, f"the newest value is of this hour; the server's zone is {server}")
    if ages and max(ages.values()) < -1:
        return ZoneHint(None, f"the newest value is in the future in {' and in '.join(ages)}: its zone is further east")
    return ZoneHint(None, f"the data tells nothing; the server's zone is {server}", tells=False)
