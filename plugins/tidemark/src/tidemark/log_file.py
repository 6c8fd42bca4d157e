"""The file that logging.yaml sends Meltano's JSON lines to."""

from __future__ import annotations

from concurrent_log_handler import ConcurrentRotatingFileHandler

from tidemark.project import Project


class RunLogHandler(ConcurrentRotatingFileHandler):
    """A rotated log that several Meltano processes may write at once, in a directory made when it is missing.

    The standard library's RotatingFileHandler loses lines when two processes rotate, and no handler makes its
    directory; ours would have to be committed empty.
    """

    def __init__(self, filename: str, **kwargs: object) -> None:
        """Open `filename`, which is taken from the project's root if it is relative."""
        path = Project.find().root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(path), **kwargs)  # type: ignore[arg-type]
