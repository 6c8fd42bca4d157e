"""Ctrl-C and SIGTERM, which dbt is to answer by cancelling its queries, and in one line."""

from __future__ import annotations

from dbt_common.exceptions import DbtBaseException


class Interruption(KeyboardInterrupt, DbtBaseException):
    """The one by which dbt cancels its queries, and the other for which it prints no traceback."""
