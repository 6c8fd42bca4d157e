"""`start_date`: an INCREMENTAL stream is read from this instant on, whatever its bookmark says.

It is one more condition on the rows. As in the MeltanoLabs tap, a row without a timestamp doesn't meet it, and it does
not apply to FULL_TABLE streams or to keys that are not times. If the date is moved back, the stream is read again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SettingInvalidError

if TYPE_CHECKING:
    from singer_postgres.core.source.replication_key import ReplicationKey

# if the zone is unknown, the date is moved back by the largest offset that a local time can have
_EARLIEST_H = 12


def parsed(text: str | None) -> datetime | None:
    """Parse the setting; None if it isn't set.

    Raises:
        SingerPostgresError: the setting is not a date or an instant.
    """
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        msg = f"start_date is {text!r}, not a date or an instant; write it as 2026-01-31 or 2026-01-31T12:00:00Z."
        raise SettingInvalidError(msg) from None


def condition(date: datetime, key: ReplicationKey) -> str | None:
    """Return the condition on a row as SQL; None if the key is not a time."""
    if not key.is_time:
        return None
    name = '"' + key.column.name.replace('"', '""') + '"'
    if key.is_instant:
        # an instant without an offset is in UTC
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return f"{name} >= '{date.isoformat()}'::timestamptz"
    # a date column matches from the day that contains the instant
    kind = "date" if key.column.target_type.type == "date" else "timestamp"
    if date.tzinfo is None:
        # a local time, as in the column
        return f"{name} >= '{date.isoformat()}'::timestamp::{kind}"
    instant = f"'{date.isoformat()}'::timestamptz"
    if key.lookback.zone is not None:
        zone = key.lookback.zone.replace("'", "''")
        return f"{name} >= ({instant} AT TIME ZONE '{zone}')::{kind}"
    return f"{name} >= ({instant} AT TIME ZONE 'UTC' - interval '{_EARLIEST_H} hours')::{kind}"
