"""The formatters that logging.yaml names: one for the console, and one for the file of JSON lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import structlog
from meltano.core.logging import console_log_formatter
from meltano.core.logging.formatters import get_default_foreign_pre_chain

from tidemark.logs.fields import dump
from tidemark.logs.meltano_lines import from_meltano
from tidemark.logs.run_log import redactor

if TYPE_CHECKING:
    import logging
    from collections.abc import MutableMapping


def console() -> logging.Formatter:
    """Return Meltano's console formatter, with colours only on a terminal."""
    formatter: logging.Formatter = console_log_formatter(colors=sys.stderr.isatty())
    return formatter


def ecs() -> logging.Formatter:
    """Return a formatter that writes Meltano's records as JSON lines with ECS fields, without any secret."""
    redact = redactor()

    def render(_: Any, __: str, record: MutableMapping[str, Any]) -> str:
        source = record.pop("_record", None)
        record.pop("_from_structlog", None)
        return dump(redact(from_meltano(dict(record), logger=source.name if source else "")))

    return structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ExtraAdder(),
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            render,
        ],
        foreign_pre_chain=get_default_foreign_pre_chain(),
    )
