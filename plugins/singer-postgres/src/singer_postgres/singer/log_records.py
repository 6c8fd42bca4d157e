"""Keeps fields of log records from ending the run.

Meltano passes what a plugin logs as `extra` on to a function of structlog by name. A field that has the name of one of
that function's own parameters is a TypeError in Meltano, and `meltano run` ends.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from singer_sdk.logging import StructuredFormatter

if TYPE_CHECKING:
    import logging

# parameters of structlog.stdlib.BoundLogger.log and of what it calls
RESERVED = frozenset({"event", "level", "method_name", "positional_args", "self"})
_format = StructuredFormatter.format


def install() -> None:
    """Have the SDK's formatter leave these fields out."""
    StructuredFormatter.format = _format_without_reserved


def _format_without_reserved(formatter: StructuredFormatter, record: logging.LogRecord) -> str:
    if RESERVED & vars(record).keys():
        record = copy.copy(record)
        for name in RESERVED & vars(record).keys():
            delattr(record, name)
    return str(_format(formatter, record))
