"""Warnings that a run gives once, whichever of its threads and however many of its streams they come from."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


class Notices:
    """What the run was warned of."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._given: set[str] = set()
        self._lock = threading.Lock()

    def warn(self, about: str, message: str) -> None:
        """Log the first warning about something."""
        with self._lock:
            if about in self._given:
                return
            self._given.add(about)
        self._logger.warning("%s", message)
