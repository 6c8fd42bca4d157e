"""What logging.yaml is made of: the console's lines and the file of JSON lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from concurrent_log_handler import ConcurrentRotatingFileHandler
from meltano.core.logging import console_log_formatter

from tidemark.project.directory import Project

if TYPE_CHECKING:
    import logging


def console_formatter() -> logging.Formatter:
    """Return Meltano's formatter for people, in colour on a terminal alone."""
    formatter: logging.Formatter = console_log_formatter(colors=sys.stderr.isatty())
    return formatter


class RunLogHandler(ConcurrentRotatingFileHandler):
    """A rotated log that several Meltano processes may write at once, in a directory made when it is missing.

    The standard library's RotatingFileHandler loses lines when two processes rotate, and no handler makes its
    directory; ours would have to be committed empty.
    """

    def __init__(self, filename: str, **kwargs: object) -> None:
        """Open `filename`, which is taken from where the project's runs write if it is relative."""
        path = Project.find().work / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(path), **kwargs)  # type: ignore[arg-type]
