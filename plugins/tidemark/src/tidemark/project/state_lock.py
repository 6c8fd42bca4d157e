"""One run at a time plans the shards of a source, or changes the state in Meltano that all of them share.

Meltano reads, changes and writes a state as a whole, without a lock: of two runs that do so at once, the second would
undo what the first has written.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core import advisory_locks
from tidemark.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.sources import SourceDefinition


@contextmanager
def alone(warehouse: psycopg.Connection[Any], source: SourceDefinition) -> Iterator[None]:
    """Keep out other runs, on all machines, for a moment. A session may do so again inside of it.

    Args:
        warehouse: a session; it waits as long as its lock_timeout.

    Raises:
        BusyError: another run does not come to an end with it.
    """
    # a tap and target have one state, whichever database the tap reads
    key = advisory_locks.key("tidemark shards", source.raw_schema)
    try:
        warehouse.execute("select pg_advisory_lock(%s)", [key])
    except psycopg.errors.LockNotAvailable as error:
        who = advisory_locks.holder(warehouse, key) or "it ended just now"
        raise BusyError(
            f"Another run of {source.name} plans its shards, or changes their state, and does not end with that "
            f"({who}); run this again."
        ) from error
    try:
        yield
    finally:
        advisory_locks.unlock(warehouse, key)
