"""The tables that hold the rows of a FULL_TABLE stream until it ends."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.warehouse import brief_locks, tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    Connection = psycopg.Connection[Any]


class FullStages:
    """The stages of one stream in one run, one for each snapshot that it was read under.

    If the tap's connections break, it begins the stream again under another snapshot. Then only those rows count.
    """

    def __init__(self, schema: str, stream: str, run: str) -> None:
        """Make no table yet.

        Args:
            run: identifies the run. A dump may still read a table that an earlier run left behind, so each run has
                names of its own.
        """
        self._schema = schema
        self._prefix = f"_tidemark_stage_{short_digest(stream)}"
        self._run = run
        self._made: set[str] = set()
        self._making = threading.Lock()

    def of(self, connection: Connection, snapshot: str, types: Mapping[str, str]) -> sql.Identifier:
        """Return the table for the rows of a snapshot. It is created when first needed."""
        stage = sql.Identifier(self._schema, f"{self._prefix}_{short_digest(f'{self._run} {snapshot}')}")
        with self._making:
            if snapshot not in self._made:
                # committed at once, because other workers are about to use the table
                connection.execute(
                    sql.SQL("CREATE UNLOGGED TABLE IF NOT EXISTS {} ({})").format(stage, tables.definitions(types))
                )
                self._made.add(snapshot)
        return stage

    def drop(self, connection: Connection) -> None:
        """Drop the stages of this run and of killed runs."""
        found = connection.execute(
            "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r' "
            "AND starts_with(relname, %s)",
            [sql.Identifier(self._schema).as_string(), self._prefix],
        ).fetchall()
        for (name,) in found:
            stage = sql.Identifier(self._schema, name)
            drop = sql.SQL("DROP TABLE {}").format(stage)
            # a single attempt: only a dump would read the stage, and a dump takes long
            brief_locks.if_possible(connection, partial(connection.execute, drop), table=stage, patience_s=0.1)


def short_digest(text: str) -> str:
    """Return a short digest of a text, for table names that have no room for all of it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
