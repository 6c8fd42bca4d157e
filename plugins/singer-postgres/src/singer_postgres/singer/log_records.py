"""Removes fields of log records that would end the run.

Meltano passes the fields of a plugin's log record to a function of structlog as named arguments. If a field has the
name of one of that function's own parameters, Meltano raises a TypeError, and `meltano run` ends.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from singer_sdk.logging import StructuredFormatter

if TYPE_CHECKING:
    import logging

# the parameters of structlog.stdlib.BoundLogger.log and of the functions that it calls
RESERVED = frozenset({"event", "level", "method_name", "positional_args", "self"})
_format = StructuredFormatter.format


def install() -> None:
    """Make the SDK's formatter omit these fields."""
    StructuredFormatter.format = _format_without_reserved


def _format_without_reserved(formatter: StructuredFormatter, record: logging.LogRecord) -> str:
    if RESERVED & vars(record).keys():
        record = copy.copy(record)
        for name in RESERVED & vars(record).keys():
            delattr(record, name)
    return str(_format(formatter, record))
