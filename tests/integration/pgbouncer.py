"""A real PgBouncer in front of a project's servers."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dotenv import dotenv_values

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

_PASSWORDS = {
    "tidemark": "TIDEMARK_ADMIN_PASSWORD",
    "tidemark_reader": "TAP_POSTGRES_PASSWORD",
    "tidemark_loader": "TARGET_POSTGRES_PASSWORD",
    "tidemark_transformer": "DBT_POSTGRES_PASSWORD",
    "tidemark_watcher": "TIDEMARK_MONITOR_PASSWORD",
}
wanted = pytest.mark.skipif(not shutil.which("pgbouncer"), reason="needs PgBouncer (Debian: pgbouncer)")


def password(checkout: Checkout, role: str) -> str:
    return dotenv_values(checkout.root / ".env")[_PASSWORDS[role]] or ""


def connect(checkout: Checkout, port: int, role: str, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host="127.0.0.1",
        port=port,
        user=role,
        password=password(checkout, role),
        dbname=database,
        autocommit=True,
        prepare_threshold=None,
    )


@contextmanager
def pooling(checkout: Checkout, mode: str, *, size: int = 20) -> Iterator[int]:
    """Run PgBouncer; yield its port. The database `shop` is the source's, all others are the warehouse's."""
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=checkout.root))
    users = "".join(f'"{role}" "{password(checkout, role)}"\n' for role in _PASSWORDS)
    (directory / "users").write_text(users)
    source, warehouse = checkout.env["TAP_POSTGRES_PORT"], checkout.env["TARGET_POSTGRES_PORT"]
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\nshop = host=127.0.0.1 port={source}\n* = host=127.0.0.1 port={warehouse}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {directory}/users\nstats_users = tidemark_watcher\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
    )
    program = [shutil.which("pgbouncer") or "", str(directory / "pgbouncer.ini")]
    if getpass.getuser() == "root":
        # PgBouncer refuses to run as root
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, "nobody")
        program[1:1] = ["-u", "nobody"]
    child = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while not _answers(checkout, port):
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield port
    finally:
        child.terminate()
        child.wait()


def _answers(checkout: Checkout, port: int) -> bool:
    try:
        connect(checkout, port, "tidemark_loader", "warehouse").close()
    except psycopg.OperationalError:
        return False
    return True
