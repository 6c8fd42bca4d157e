"""A part that is read in a thread of its own, so that one that does not answer keeps no scrape waiting."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from singer_postgres.core.errors import one_line
from tidemark.metrics import catalogue
from tidemark.metrics.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Part:
    """One part, such as the warehouse. Whatever goes wrong in it ends there."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        """Read nothing yet.

        Args:
            say: gets one line when the part can't be read, and when it can be read again.
        """
        self._name = name
        self._say = say
        self._failed = ""
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self._samples = Samples()
        self._outcome: list[Any] = []

    def begin(self, work: Callable[[Samples], Any]) -> None:
        """Begin to read, unless the last reading has not ended yet."""
        self._began = time.monotonic()
        if self._thread and self._thread.is_alive():
            return
        samples, outcome = Samples(), list[Any]()
        self._samples, self._outcome = samples, outcome

        def run() -> None:
            try:
                outcome.append(work(samples))
            except Exception as error:  # noqa: BLE001 - whatever it is, the part can't be read
                outcome.append(error)

        self._thread = threading.Thread(target=run, name=self._name, daemon=True)
        self._thread.start()

    def end(self, samples: Samples, *, limit_s: float) -> Any:
        """Wait for the reading, add its samples, and return its result; None if it failed or did not end in time."""
        assert self._thread
        self._thread.join(limit_s)
        result = None
        if self._thread.is_alive():
            failed = "it does not answer"
        else:
            (result,) = self._outcome
            failed = (one_line(result) or type(result).__name__) if isinstance(result, Exception) else ""
        if failed != self._failed:
            self._failed = failed
            self._say(f"{self._name}: {failed or 'can be read again'}")
        samples.add(catalogue.UP, not failed, self._name)
        samples.add(catalogue.SCRAPE_SECONDS, time.monotonic() - self._began, self._name)
        if failed:
            return None
        samples.merge(self._samples)
        return result

    def read(self, work: Callable[[Samples], _T], samples: Samples, *, limit_s: float) -> _T | None:
        """Begin and end."""
        self.begin(work)
        found: _T | None = self.end(samples, limit_s=limit_s)
        return found
