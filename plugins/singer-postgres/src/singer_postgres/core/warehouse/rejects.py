"""`_tidemark_rejects`: records that their table can't hold, each with the reason, for a person to look at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from singer_postgres.core.warehouse.run_history import StreamRun

TABLE = SystemTable(
    "_tidemark_rejects",
    (
        # the record is text, because the reason may be a NUL character, which jsonb refuses
        """
        -- One row per record that its table could not hold. Nothing deletes these rows: look at them, then do so.
        -- Written by: the target, for RECORD messages, up to `max_rejects` of a stream and run.
        -- Read by: people.
        CREATE TABLE {} (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- a number, in the order of the rejections
            source text NOT NULL DEFAULT '', -- empty: a RECORD message does not name its database
            stream text NOT NULL, -- the Singer stream
            table_name text NOT NULL, -- the table that could not hold it
            run_id text NOT NULL, -- the run, as in `_tidemark_runs`
            rejected_at timestamptz NOT NULL DEFAULT now(), -- when it was rejected
            error text NOT NULL, -- why
            record text NOT NULL -- the record, as JSON
        )
        """,
    ),
)


def put(connection: psycopg.Connection[Any], run: StreamRun, record: Mapping[str, Any], error: BaseException) -> None:
    """Add a rejected record."""
    name = TABLE.in_statement(run.schema)
    connection.execute(
        sql.SQL("INSERT INTO {} (stream, table_name, run_id, error, record) VALUES (%s, %s, %s, %s, %s)").format(name),
        [
            run.stream,
            run.table,
            run.run_id,
            one_line(error).replace("\0", ""),
            json.dumps(record, default=str),
        ],
    )
