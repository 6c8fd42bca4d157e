"""The session settings under which values are written by one server and read by another without a change.

COPY's text form of a value depends on these, so both ends set them; a server's or a role's own defaults never count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# the tap's sessions, by which they are told from those that write
TAP = "tidemark tap-postgres"

SETTINGS = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    # the shortest text that reads back as the same number; 0 would give 0.3 for 0.30000000000000004
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    # off, a null in an array is read as the text NULL
    "array_nulls": "on",
    # on, names are quoted that need not be: those of types, which are compared, and of the objects in reg* columns
    "quote_all_identifiers": "off",
    # every name is written out in full
    "search_path": "",
    "standard_conforming_strings": "on",
    # serializable is refused by a standby, and makes writers fail that do nothing wrong
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
_TRANSACTION_TIMEOUT_SINCE = 17_00_00


def unlimited(server_version: int) -> dict[str, str]:
    """Return the settings of a session that holds a snapshot or a lock, and so is long and idle by design.

    Args:
        server_version: as `server_version_num` has it.
    """
    since_17 = {"transaction_timeout": "0"} if server_version >= _TRANSACTION_TIMEOUT_SINCE else {}
    return {"idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0", **since_17}


def statements(server_version: int, *, statement_timeout_s: float = 0, lock_timeout_s: float = 0) -> str:
    """Return the SQL that gives a session these settings, in one round trip.

    Sent as statements and not as the connection's `options`: poolers refuse or forget those.
    """
    settings = {
        **SETTINGS,
        **unlimited(server_version),
        "statement_timeout": f"{round(statement_timeout_s * 1000)}",
        "lock_timeout": f"{round(lock_timeout_s * 1000)}",
    }
    return as_sql(settings)


def as_sql(settings: Mapping[str, str]) -> str:
    """Return the SQL that makes these settings."""
    return "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())
