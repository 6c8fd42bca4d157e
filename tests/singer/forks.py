"""Imports all of the tap or the target once, then forks a process that runs it at every request.

    python forks.py tap 3

Run by the Python of the program's environment; the number is that of a listening socket. A request is the program's
command line and the patches to it, as JSON, with its three standard streams; the answers are the process's id and, when
it ended, its status as `subprocess` has it. Ends with its standard input.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys


def patch(names: list[str]) -> None:
    """Take out of the tap what a test is to show the need for."""
    from singer_postgres.tap import horizon, watermark  # noqa: PLC0415

    if "no lookback" in names:
        watermark.LOOKBACK_FLOOR_S = 0
    if "no watermark" in names:
        read = horizon.read

        def blindfolded(connection: object) -> object:
            found = read(connection)
            return horizon.Horizon(found.now, found.now)

        horizon.read = blindfolded


def serve(listener: socket.socket) -> tuple[list[str], list[str], list[int]]:
    """Fork at each request; return the request in the process that is to run it."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    callers: dict[int, socket.socket] = {}
    ready = selectors.DefaultSelector()
    for each in (listener, woken, sys.stdin):
        ready.register(each, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is sys.stdin:
                os._exit(0)
            elif key.fileobj is listener:
                caller, _ = listener.accept()
                request, streams, _, _ = socket.recv_fds(caller, 65536, 3)
                if not (pid := os.fork()):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return *json.loads(request), streams
                for stream in streams:
                    os.close(stream)
                callers[pid] = caller
                caller.sendall(f"{pid}\n".encode())
            else:
                os.read(woken, 4096)
                while callers and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    with callers.pop(ended[0]) as caller:
                        caller.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())


if __name__ == "__main__":
    side, number = sys.argv[1:]
    importlib.import_module("singer_postgres.lazy").install()
    entry = importlib.import_module(f"singer_postgres.{side}.entry")
    # what the entry imports when it knows what is wanted
    for module in ("command", f"{side}.{side}", f"{side}.quick"):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"singer_postgres.{module}")
    gc.freeze()
    sys.argv, patches, streams = serve(socket.socket(fileno=int(number)))
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    os.closerange(3, 64)
    if patches:
        patch(patches)
    sys.exit(entry.main())
