"""A new database for each test, at the least cost."""

from __future__ import annotations

import threading
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

# by the server's URL; each keeps a connection for all tests
_administrators: dict[str, psycopg.Connection[Any]] = {}


@contextmanager
def fresh_database(checkout: Checkout, side: str, options: str = "") -> Iterator[str]:
    """Make a database, and drop it at the end; yield its URL."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    # copied in the file system, which takes half of the time of a copy through the log
    _administer(checkout, side, f"create database {name} strategy file_copy {options}")
    try:
        yield psycopg.conninfo.make_conninfo(checkout.urls[side], dbname=name)
    finally:
        _administer(checkout, side, f"drop database {name} with (force)")


def close() -> None:
    """Close the kept connections."""
    while _administrators:
        _administrators.popitem()[1].close()


class Sessions:
    """Runs statements as in a new session each, and connects once for each thread and database."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], psycopg.Connection[Any]] = {}

    def execute(self, url: str, statements: str) -> psycopg.Cursor[Any]:
        key = (threading.get_ident(), url)
        if kept := self._kept.get(key):
            try:
                # a test may have ended the session
                kept.execute("discard all")
            except psycopg.OperationalError:
                kept.close()
                del self._kept[key]
        connection = self._kept.get(key) or psycopg.connect(url, autocommit=True, prepare_threshold=None)
        self._kept[key] = connection
        try:
            return connection.execute(statements.encode())
        finally:
            # what the statements began, and nobody else will end
            if connection.info.transaction_status != pq.TransactionStatus.IDLE and not connection.broken:
                connection.commit()

    def close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()


def _administer(checkout: Checkout, side: str, statement: str) -> None:
    if kept := _administrators.get(checkout.urls.get(side, "")):
        try:
            kept.execute(statement.encode())
        except psycopg.OperationalError:
            # a test may have restarted the server
            if not kept.broken:
                raise
            kept.close()
        else:
            return
    connection = checkout.connect(side, "postgres")
    _administrators[checkout.urls[side]] = connection
    connection.execute(statement.encode())
