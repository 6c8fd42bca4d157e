"""The composing of SQL, by whichever driver is installed here: the tap's environment has one, other tools the other.

Both have the same SQL, Identifier, Literal and Composed.
"""

from __future__ import annotations

try:
    from psycopg2 import DataError, sql
except ImportError:
    from psycopg import DataError, sql

__all__ = ["DataError", "sql"]
