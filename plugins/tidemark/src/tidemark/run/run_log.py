"""The classes that logging.yaml uses: a formatter for the console, and a handler for the file of JSON lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from concurrent_log_handler import ConcurrentRotatingFileHandler
from meltano.core.logging import console_log_formatter

from tidemark.project.directory import Project

if TYPE_CHECKING:
    import logging


def console_formatter() -> logging.Formatter:
    """Return Meltano's console formatter, with colours only on a terminal."""
    formatter: logging.Formatter = console_log_formatter(colors=sys.stderr.isatty())
    return formatter


class RunLogHandler(ConcurrentRotatingFileHandler):
    """A rotated log that several Meltano processes may write at once. It creates its directory if that is missing.

    The standard library's RotatingFileHandler loses lines when two processes rotate the file. It also doesn't create
    its directory, so we would have to commit an empty one.
    """

    def __init__(self, filename: str, **kwargs: object) -> None:
        """Open `filename`. A relative name is below the directory that the project's runs write to."""
        path = Project.find().work / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(path), **kwargs)  # type: ignore[arg-type]
