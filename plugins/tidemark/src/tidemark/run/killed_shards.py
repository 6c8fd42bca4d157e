"""Goes on from what killed shards of a load have left: their state, and first loads that nobody loads any more."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core import advisory_locks
from singer_postgres.core.warehouse import load_parts, shard_plan
from singer_postgres.core.warehouse.shard_plan import ShardPlan
from tidemark.project import connections, meltano_state, state_lock
from tidemark.run.shared_loads import SharedLoads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tidemark.project.database_settings import Warehouse
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

    Connection = psycopg.Connection[Any]


def adopt(project: Project, source: SourceDefinition, warehouse: Warehouse) -> None:
    """Merge the states of killed shards, and have their shared first loads continued as ordinary ones."""
    with connections.connect(warehouse) as connection:
        for table in (shard_plan.TABLE, load_parts.TABLE):
            name = sql.Identifier(source.raw_schema, table.name)
            row = connection.execute("select to_regclass(%s)", [name.as_string()]).fetchone()
            if not row or row[0] is None:
                continue
            ids = [row[0] for row in connection.execute(sql.SQL("select distinct source from {}").format(name))]
            if table is shard_plan.TABLE:
                with state_lock.alone(connection, source):
                    adopt_states(project, source, connection, ids)
            for source_id in ids if table is load_parts.TABLE else ():
                shared = SharedLoads(project, source, source_id, connection)
                for load in shared.now().values():
                    shared.hand_over(load)


def adopt_states(
    project: Project, source: SourceDefinition, connection: Connection, source_ids: Iterable[str], *, own: str = ""
) -> None:
    """Merge the states of killed shards of a source. The caller keeps out other runs.

    Args:
        source_ids: the identities that the source has had.
        own: the shard whose lock the caller has.
    """
    for name in meltano_state.shards(project, source):
        number, _, count = name.partition("-of-")
        keys = [ShardPlan(source.raw_schema, each, int(count)).lock_key(int(number)) for each in source_ids]
        with _locked(connection, keys if name != own else []) as is_dead:
            if is_dead:
                meltano_state.end_shard(project, source, name)


@contextmanager
def _locked(connection: Connection, keys: Iterable[int]) -> Iterator[bool]:
    """Hold locks if all of them are free; yield whether they were."""
    held = []
    try:
        for key in keys:
            if not advisory_locks.try_lock(connection, key):
                yield False
                return
            held.append(key)
        yield True
    finally:
        for key in held:
            advisory_locks.unlock(connection, key)
