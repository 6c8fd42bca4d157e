"""Writes states to standard output, each once everything that came before it is committed."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from singer_postgres.target.state_order import State, StateOrder

if TYPE_CHECKING:
    from collections.abc import Iterator


class StateWriter:
    """The states of one run, for threads that commit what came between them."""

    def __init__(self) -> None:
        self._order = StateOrder()
        # guards the order and standard output
        self._lock = threading.Lock()

    def submit(self) -> int:
        """Return a number for a chunk, or a batch of records, that has arrived. Later states wait for it."""
        with self._lock:
            return self._order.submit()

    def commit(self, number: int) -> None:
        """Note that a chunk or batch is committed."""
        with self._writing() as order:
            order.commit(number)

    def fail(self, number: int, stream: str) -> None:
        """Note that a chunk or batch of a stream failed: the stream keeps its bookmark."""
        with self._writing() as order:
            order.fail(number, stream)

    def came(self, state: State) -> None:
        """Note that a state has arrived."""
        with self._writing() as order:
            if state:
                order.came(state)

    @contextmanager
    def _writing(self) -> Iterator[StateOrder]:
        """Lend the order, and write the state that waited only for the change."""
        with self._lock:
            yield self._order
            state = self._order.to_tell()
            if state is not None:
                sys.stdout.write(json.dumps(state) + "\n")
                sys.stdout.flush()
