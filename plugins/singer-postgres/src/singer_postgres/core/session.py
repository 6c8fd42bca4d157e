"""Session settings that make one server write values and another read them without a change.

COPY's text form depends on these settings, so both ends set them. The defaults of a server or role never count.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# how the application_name of the tap's sessions begins, which tells them from sessions that write
TAP = "tidemark tap-postgres"
_RUN_ID = "TIDEMARK_RUN_ID"

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
    # if off, a null in an array would be read as the text NULL
    "array_nulls": "on",
    # if on, the server would quote more names: of types, which are compared, and of objects in reg* columns
    "quote_all_identifiers": "off",
    # all names are written with their schema
    "search_path": "",
    "standard_conforming_strings": "on",
    # a standby refuses serializable, and serializable makes innocent writers fail
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}
# for statements over a whole table, which a limit for those of a chunk would cancel at each run
NO_STATEMENT_TIMEOUT = "SET LOCAL statement_timeout = 0"
_TRANSACTION_TIMEOUT_SINCE = 17_00_00


def unlimited(server_version: int) -> dict[str, str]:
    """Return the settings for a session that holds a snapshot or a lock, and so is long and idle by design.

    Args:
        server_version: the server's `server_version_num`.
    """
    since_17 = {"transaction_timeout": "0"} if server_version >= _TRANSACTION_TIMEOUT_SINCE else {}
    return {"idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0", **since_17}


def statements(server_version: int, *, statement_timeout_s: float = 0, lock_timeout_s: float = 0) -> str:
    """Return the SQL that sets these settings in one round trip.

    They are sent as statements, not as the connection's `options`, which poolers refuse or forget.
    """
    settings = {
        **SETTINGS,
        **unlimited(server_version),
        "statement_timeout": f"{round(statement_timeout_s * 1000)}",
        "lock_timeout": f"{round(lock_timeout_s * 1000)}",
    }
    return as_sql(settings)


def as_sql(settings: Mapping[str, str]) -> str:
    """Return the SQL that sets these settings."""
    return "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())


def application_name(program: str) -> str:
    """Return the application_name of a program's sessions: with the run's id, by which the server's log has it too."""
    run_id = os.environ.get(_RUN_ID)
    return f"{program} {run_id}" if run_id else program
