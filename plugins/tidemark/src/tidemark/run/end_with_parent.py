"""Ends this process when whoever started it is gone, which closes the pipe that it was given for standard input."""

from __future__ import annotations

import os
import signal
import sys
import threading


def end_with_stdin() -> None:
    """End, as on SIGTERM, at the end of standard input."""
    threading.Thread(target=_wait, name="stdin", daemon=True).start()


def _wait() -> None:
    # not sys.stdin.read, which would hold a lock that the interpreter wants as it ends
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
