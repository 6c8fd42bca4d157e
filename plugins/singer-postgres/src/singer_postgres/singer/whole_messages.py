"""Keeps messages whole on their way out."""

from __future__ import annotations

import io
import sys


def buffer_output() -> None:
    """Let no signal cut a message, such as that by which a stopped process or a suspended machine continues.

    With PYTHONUNBUFFERED, which `tidemark run` sets for the log, Python hands a text to the system in one write(2) and
    ignores how much of it was written. If a signal comes while a message of more than the pipe's 64 KiB waits for its
    reader, the rest of the message is lost. Each writer of ours flushes after a message, so nothing is delayed.
    """
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        sys.stdout = open(  # noqa: SIM115 - a descriptor, to the end of the process
            sys.stdout.fileno(), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False
        )
