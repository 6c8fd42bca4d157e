"""The log of all runs, logs/meltano.jsonl: Meltano writes there (logging.yaml), and so does `tidemark` itself."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concurrent_log_handler import ConcurrentRotatingFileHandler
from dotenv import dotenv_values

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError
from tidemark.logs.fields import dump, entry
from tidemark.logs.redaction import Redactor
from tidemark.logs.settings import log_settings
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATASET = "tidemark.run"
_DAY_S = 86_400
# one file is large enough for weeks of a small project, and small enough for an editor
MAX_BYTES = 20_000_000
# no limit of its own: files are deleted by their age alone, because the shipper may not have sent them yet
_MANY = 10_000
# whichever process creates it: its user writes, and a shipper of the same group reads
_MODE = 0o640


def redactor() -> Redactor:
    """Return what hides the secrets of this process and of .env, which `meltano run` reads by itself."""
    kept: dict[str, str | None] = {}
    with suppress(OSError, UsageError):
        kept = dotenv_values(Project.find().dotenv, encoding="utf-8")
    return Redactor({**{name: value or "" for name, value in kept.items()}, **os.environ})


class RunLogHandler(ConcurrentRotatingFileHandler):
    """A rotated log that several processes may write at once. It creates its directory if that is missing.

    The standard library's RotatingFileHandler loses lines when two processes rotate the file, and deletes files by
    their number. It also doesn't create its directory, so we would have to commit an empty one.
    """

    def __init__(self, filename: str = "meltano.jsonl", maxBytes: int = MAX_BYTES) -> None:  # noqa: N803 - as logging's
        """Open `filename`. A relative name is below the directory of logs."""
        project = Project.find()
        path = project.log_dir / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        self._keep_s = log_settings(project).keep_days * _DAY_S
        super().__init__(str(path), maxBytes=maxBytes, backupCount=_MANY, encoding="utf-8", chmod=_MODE)
        self._delete_old()

    def doRollover(self) -> None:  # noqa: N802 - as logging's
        """Begin a new file, and delete those that are past their time."""
        super().doRollover()
        self._delete_old()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - as logging's
        """Go on without the line: on a full disk, logging would print a traceback for each one."""

    def _delete_old(self) -> None:
        log = Path(self.baseFilename)
        for rotated in log.parent.glob(f"{log.name}.[0-9]*"):
            # another process may delete it first
            with suppress(OSError):
                if time.time() - rotated.stat().st_mtime > self._keep_s:
                    rotated.unlink()


def handler(**options: Any) -> logging.Handler:
    """Return the handler of Meltano's log. If it can't be written, say so once, and return one that writes nothing.

    A run is worth more than its log.
    """
    try:
        return RunLogHandler(**options)
    except (OSError, UsageError) as error:
        sys.stderr.write(f"warning: this run is not logged to a file: {one_line(error)}\n")
        return logging.NullHandler()


class RunLog:
    """Writes the lines of one command of `tidemark`. A log that can't be written ends no run."""

    def __init__(self, run_id: str | None = None) -> None:
        """Write lines of this run; of the run that started this process by default, if there is one."""
        self._run_id = run_id or os.environ.get("TIDEMARK_RUN_ID")
        self._redact = redactor()
        self._handler: RunLogHandler | None = None

    def write(self, message: str, *, level: str = "info", more: Mapping[str, Any] | None = None) -> None:
        """Append a line with these fields."""
        fields = {"process.pid": os.getpid(), "tidemark.run_id": self._run_id, **(more or {})}
        line = entry(message, level=level, dataset=_DATASET, service="tidemark", more=fields)
        record = logging.makeLogRecord({"msg": dump(self._redact(line))})
        with suppress(OSError, UsageError):
            self._handler = self._handler or RunLogHandler()
            self._handler.handle(record)


def of_error(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a line about an error: its `code`, `message`, `transient` and `hint`."""
    return {
        "error.code": error["code"],
        "error.message": error["message"],
        "event.outcome": "failure",
        "tidemark.error.transient": error["transient"],
        "tidemark.error.hint": error["hint"],
    }
