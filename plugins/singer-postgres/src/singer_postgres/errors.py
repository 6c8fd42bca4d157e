"""What a user can put right, told in one line."""

from __future__ import annotations


class SingerPostgresError(Exception):
    """The message says what was wrong, the value, and what to do."""
