"""Holds back signals that end this process while it starts a child, which would otherwise be left behind."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Ctrl-C, a supervisor's stop, a closed terminal
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Hold signals back until the yielded function is called, or until the block ends.

    A signal in the middle of a child's start would raise before anything knows the child, and the child would live on.
    """
    came: list[int] = []
    handlers: dict[signal.Signals, Any] = {}

    def let_go() -> None:
        while handlers:
            signal.signal(*handlers.popitem())
        if came:
            signal.raise_signal(came.pop())

    # other threads get no signals, and can't set handlers
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            handlers[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield let_go
    finally:
        let_go()
