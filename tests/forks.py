"""Imports all of a program once, then forks a process that runs it at every request.

    python forks.py tap 3

The first argument is tap, target, meltano, tidemark or dbt. Run by the Python of the program's environment; the number
is that of a listening socket. A request is the program's command line, the patches to it, its directory and its
environment (null to leave them), as JSON, with its three standard streams; the answers are the process's id and, when
it ended, its status as `subprocess` has it. Ends with its standard input.
"""

from __future__ import annotations

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


def parse_once() -> None:
    """Let dbt take what it parsed for one test's servers for those of another: it would parse anew for a new port."""
    from dbt.adapters.postgres.connections import PostgresCredentials  # noqa: PLC0415

    keys = PostgresCredentials._connection_keys
    PostgresCredentials._connection_keys = lambda self: tuple(key for key in keys(self) if key not in {"host", "port"})


# what each program imports by and by, and nothing that looks at its environment as it is imported
IMPORTS = {
    "tap": ["singer_postgres.command", "singer_postgres.tap.tap", "singer_postgres.tap.quick"],
    "target": ["singer_postgres.command", "singer_postgres.target.target"],
    "meltano": ["meltano.cli", "meltano.core.db", "meltano.core.migration_service", "sqlalchemy.dialects.sqlite"],
    "dbt": [
        *("dbt.cli.main", "dbt.task.build", "dbt.task.test", "dbt.task.freshness", "dbt.parser.manifest"),
        *("dbt.adapters.postgres", "tidemark_dbt.command"),
    ],
    "tidemark": [
        *("typer", "rich.console", "rich.table", "yaml", "psutil", "psycopg", "pydantic_settings", "structlog"),
        *("meltano.core.db", "meltano.core.migration_service", "meltano.core.state_service", "meltano.core.project"),
        *("meltano.core.plugin.settings_service", "meltano.core.plugin.singer.catalog", "sqlalchemy.dialects.sqlite"),
        *("singer_postgres.tap.watermark", "singer_postgres.target.merge", "singer_postgres.target.history"),
    ],
}
ENTRIES = {
    "tap": ("singer_postgres.tap.entry", "main"),
    "target": ("singer_postgres.target.entry", "main"),
    "meltano": ("meltano.cli", "main"),
    "tidemark": ("tidemark.entry", "main"),
    "dbt": ("tidemark_dbt.entry", "main"),
}


def serve(listener: socket.socket) -> tuple[list[str], list[str], list[int], str | None, dict[str, str] | None]:
    """Fork at each request; return it, with its streams after its patches, in the process that is to run it."""
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
                request, streams, _, _ = socket.recv_fds(caller, 262_144, 3)
                if not (pid := os.fork()):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    command, patches, directory, environment = json.loads(request)
                    return command, patches, streams, directory, environment
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
    program, number = sys.argv[1:]
    if program in {"tap", "target"}:
        importlib.import_module("singer_postgres.lazy").install()
    for module in IMPORTS[program]:
        importlib.import_module(module)
    if program == "dbt":
        parse_once()
    gc.freeze()
    sys.argv, patches, streams, directory, environment = serve(socket.socket(fileno=int(number)))
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    os.closerange(3, 64)
    if directory is not None:
        os.chdir(directory)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    if patches:
        patch(patches)
    module, function = ENTRIES[program]
    sys.exit(getattr(importlib.import_module(module), function)())
