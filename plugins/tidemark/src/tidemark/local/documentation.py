"""The models' documentation: built by dbt, and served only on this machine unless the user names an address."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from singer_postgres.core import run_events
from tidemark.errors import TidemarkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tidemark.project.directory import Project


def build(project: Project) -> Path:
    """Build the site with dbt, and return its directory.

    Raises:
        TidemarkError: dbt failed.
    """
    with NamedTemporaryFile("r", dir=project.state_dir, suffix=".jsonl", encoding="utf-8") as events:
        done = subprocess.run(
            [project.meltano, "invoke", "--no-install", "dbt-postgres:docs"],
            cwd=project.root,
            env={**os.environ, run_events.VARIABLE: events.name},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        errors = [found["error"]["message"] for line in events if "error" in (found := json.loads(line))]
    if done.returncode:
        # dbt writes no event if Meltano could not start it
        said = errors or done.stderr.strip().splitlines() or ["it gave no reason"]
        raise TidemarkError(
            f"dbt could not build the documentation: {said[-1].rstrip('.')}; "
            "run `.venv/bin/meltano invoke dbt-postgres:docs` for its whole output."
        )
    return project.dbt_target


class _Quiet(SimpleHTTPRequestHandler):
    """Serves the files of a directory, without a log of each request."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serving(directory: Path, host: str, port: int) -> Iterator[Callable[[], None]]:
    """Listen on `port` of `host`, and yield a function that serves `directory` until it is interrupted.

    Raises:
        UsageError: the port is taken, or the address is not this machine's.
    """
    try:
        server = _server(host)((host, port), partial(_Quiet, directory=str(directory)))
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            raise UsageError(
                f"Port {port} is taken or closed to you; name another: `.venv/bin/tidemark docs --port {port + 1}`."
            ) from None
        raise UsageError(
            f"--host is {host!r}, and this machine can't listen there ({error.strerror}); write an address of this "
            "machine, such as 127.0.0.1, or 0.0.0.0 for all of them."
        ) from None
    with server:
        yield server.serve_forever


def _server(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server
