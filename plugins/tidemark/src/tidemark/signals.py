"""Signals that ask this process to end, held back while one would leave behind what was just started."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Ctrl-C, a supervisor's stop, a terminal that was closed
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Let signals wait until what this yields is called, or else until the block ends.

    For starting a child: a signal in the midst of that would be raised before anybody knows of the child, which would
    then live on.
    """
    came: list[int] = []
    handlers: dict[signal.Signals, Any] = {}

    def let_go() -> None:
        while handlers:
            signal.signal(*handlers.popitem())
        if came:
            signal.raise_signal(came.pop())

    # elsewhere none are raised, and none can be handled
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            handlers[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield let_go
    finally:
        let_go()
