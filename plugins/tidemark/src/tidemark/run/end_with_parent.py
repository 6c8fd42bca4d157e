"""Ends this process when its parent is gone: the pipe on standard input then closes."""

from __future__ import annotations

import os
import signal
import sys
import threading


def end_with_stdin() -> None:
    """End this process with SIGTERM when standard input closes."""
    threading.Thread(target=_wait, name="stdin", daemon=True).start()


def _wait() -> None:
    # sys.stdin.read would hold a lock that the interpreter needs at exit
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
