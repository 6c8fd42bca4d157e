"""`start_date`: the instant from which on an INCREMENTAL stream is read, whatever its bookmark says.

It is one more condition that rows must meet. As with the MeltanoLabs tap, a row without a stamp does not meet it, and
streams that are read whole don't know it; nor do keys that are not times. An earlier date has the stream read again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SingerPostgresError

if TYPE_CHECKING:
    from singer_postgres.core.source.watermark import ReplicationKey

# where the zone is unknown, as much more is read as a time on earth can differ
_EARLIEST_H = 12


def parsed(text: str | None) -> datetime | None:
    """Return the instant that the setting names; None if it isn't set.

    Raises:
        SingerPostgresError: it is not one.
    """
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        msg = f"start_date is {text!r}, and not a date or an instant; write it as 2026-01-31 or 2026-01-31T12:00:00Z."
        raise SingerPostgresError(msg) from None


def condition(date: datetime, key: ReplicationKey) -> str | None:
    """Return the condition that a row must meet, as SQL; None if the key is not a time."""
    if not key.is_time:
        return None
    name = '"' + key.column.name.replace('"', '""') + '"'
    if key.is_instant:
        # one without an offset is in UTC
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return f"{name} >= '{date.isoformat()}'::timestamptz"
    # a date is read whose day has the instant in it
    kind = "date" if key.column.target_type.type == "date" else "timestamp"
    if date.tzinfo is None:
        # as the column has it
        return f"{name} >= '{date.isoformat()}'::timestamp::{kind}"
    instant = f"'{date.isoformat()}'::timestamptz"
    if key.lookback.zone is not None:
        zone = key.lookback.zone.replace("'", "''")
        return f"{name} >= ({instant} AT TIME ZONE '{zone}')::{kind}"
    return f"{name} >= ({instant} AT TIME ZONE 'UTC' - interval '{_EARLIEST_H} hours')::{kind}"
