"""Runs pg_dump and pg_restore. Other users can't see the password, and an error is one line."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Self

from tidemark.errors import BackupError, TidemarkError
from tidemark.project.file_locks import share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tidemark.project.database_settings import DatabaseSettings

_STOP_S = 10
_FULL = ("No space left on device", "Disk quota exceeded", "wrote only")
# DDL ran meanwhile: pg_dump's workers take their locks without waiting
_MOVED = ("could not obtain lock on relation", "does not exist", "deadlock detected", "lock timeout")
# pg_restore from 17 on sets this on every server, and servers before 17 don't know it
_UNKNOWN = 'unrecognized configuration parameter "transaction_timeout"'

# environment variables that would change the server or the output
_OTHERS = {"PGOPTIONS", "PGHOSTADDR", "PGSERVICE", "PGTZ", "PGDATESTYLE", "PGCLIENTENCODING"}


# a server whose machine is gone doesn't answer, and the kernel's own limit is two hours
KEEPALIVES = "keepalives_idle=30 keepalives_interval=10 keepalives_count=3 tcp_user_timeout=60000"


class MovedError(BackupError):
    """Tables changed during pg_dump. Another attempt may succeed."""


class Program:
    """A running program, as a context manager: at its exit the program has ended.

    If this process dies, the program runs on to its end, and keeps the lock until then.
    """

    def __init__(self, command: Sequence[str], side: DatabaseSettings, lock: int, *, full: Path | str) -> None:
        """Start the program.

        Args:
            full: the place to name if the disk is full.
        """
        self._name = os.path.basename(command[0])  # noqa: PTH119 - text
        self._side = side
        self._full = full
        self._child = subprocess.Popen(
            command,
            env=_environment(side),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=[lock],
        )
        share(lock, self._child.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            # on SIGTERM it cancels its workers' statements
            self._child.terminate()
            try:
                self._child.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.communicate()

    def stop(self) -> None:
        """Send the program SIGTERM. Any thread may call this."""
        self._child.terminate()

    def wait(self) -> None:
        """Wait until the program ends. There is no time limit, but `KEEPALIVES` end it if its server is gone.

        Raises:
            MovedError: tables changed during the dump.
            TidemarkError: the program failed.
        """
        _, said = self._child.communicate()
        complaints = [line for line in said.splitlines() if "error:" in line and _UNKNOWN not in line]
        if self._child.returncode == 0 or (not complaints and _UNKNOWN in said):
            return
        if any(sign in said for sign in _FULL):
            raise BackupError(f"There is no space left in {self._full}: free some, or keep fewer backups (--keep).")
        lines = complaints or said.strip().splitlines() or ["it printed nothing"]
        reason = re.sub(r"^\w+: (?:error: )?", "", lines[0]).rstrip(".")
        kind = MovedError if any(sign in said for sign in _MOVED) else TidemarkError
        raise kind(f"{self._name} failed for the {self._side}: {reason}.")


def _environment(side: DatabaseSettings) -> dict[str, str]:
    """Return the environment in which libpq connects to `side`. Arguments are unsafe: all users can read them."""
    ours = {
        "PGHOST": side.address,
        "PGPORT": str(side.port),
        "PGUSER": side.user,
        "PGDATABASE": side.database,
        "PGAPPNAME": "tidemark backup",
        "PGCONNECT_TIMEOUT": "10",
        "LC_ALL": "C",
    }
    if side.password:
        ours["PGPASSWORD"] = side.password.get_secret_value()
    if side.ssl_enable:
        ours["PGSSLMODE"] = side.ssl_mode
    if side.ssl_certificate_authority:
        ours["PGSSLROOTCERT"] = side.ssl_certificate_authority
    return {**{name: value for name, value in os.environ.items() if name not in _OTHERS}, **ours}
