"""Advisory locks that a test holds for a while."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from singer_postgres.core import advisory_locks

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def held(connection: Any, *keys: int) -> Iterator[None]:
    """Hold locks within the block, and know that they are free after it.

    Closing the session is not enough: the server frees its locks some time after the client has gone on.
    """
    with contextlib.ExitStack() as stack:
        for key in keys:
            connection.execute("select pg_advisory_lock(%s)", [key])
            stack.callback(advisory_locks.unlock, connection, key)
        yield
