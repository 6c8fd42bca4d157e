"""Warnings that a run logs only once, even if several threads or streams give them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


class Notices:
    """The warnings that this run has logged."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._given: set[str] = set()
        self._lock = threading.Lock()

    def warn(self, about: str, message: str) -> None:
        """Log a warning, unless there was one about the same thing."""
        with self._lock:
            if about in self._given:
                return
            self._given.add(about)
        self._logger.warning("%s", message)
