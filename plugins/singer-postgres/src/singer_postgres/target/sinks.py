"""RECORD messages, from any tap: staged by COPY and brought in by the same statement as chunks are.

Types and tables are the MeltanoLabs target's, but where the SCHEMA message gives a column's PostgreSQL type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from target_postgres.sinks import PostgresSink

from singer_postgres.target import merge, tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class RecordSink(PostgresSink):
    """A stream of RECORD messages."""

    def upsert(
        self,
        from_table: sa.Table,
        to_table: sa.Table,
        schema: dict[str, Any],
        join_keys: Sequence[str],
        connection: sa.engine.Connection,
    ) -> int | None:
        """Bring the staged records in, each with one write: the MeltanoLabs way updates every row that it inserts."""
        if self.append_only:
            return super().upsert(from_table, to_table, schema, join_keys, connection)
        stage, target = _name(from_table), _name(to_table)
        columns = [name for name in schema["properties"] if name in from_table.columns]
        data = [name for name in columns if not name.startswith("_sdc_")]
        statement = sql.SQL(
            "INSERT INTO {target} AS t ({names}) SELECT {fields} FROM {stage} s LEFT JOIN {target} t ON {matched} "
            "WHERE t.{first} IS NULL OR {differs} ON CONFLICT ({key}) DO UPDATE SET {updates}"
        ).format(
            target=target,
            stage=stage,
            names=merge.names(columns),
            fields=merge.names(columns, "s"),
            matched=merge.matched(join_keys),
            first=sql.Identifier(join_keys[0]),
            differs=merge.differs([*data, *(["_sdc_deleted_at"] if "_sdc_deleted_at" in columns else [])]),
            key=merge.names(join_keys),
            updates=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in columns if name not in join_keys
            ),
        )
        driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        driver.execute(statement)
        return None


def _name(table: sa.Table) -> sql.Composable:
    return sql.Identifier(*([table.schema] if table.schema else []), table.name)
