"""RECORD messages, from any tap: staged by COPY and brought in by the same statement as chunks are.

Columns have the types that the MeltanoLabs target gives them, but where the SCHEMA message names a column's PostgreSQL
type; tables are made and widened as those of chunks are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from psycopg import sql
from sqlalchemy.dialects import postgresql
from target_postgres.sinks import PostgresSink

from singer_postgres.target import merge, tables
from singer_postgres.target.written import Written, WrittenCounters
from singer_postgres.wire import Table, WireColumn

if TYPE_CHECKING:
    import psycopg

# or reflection warns of the loading transaction's column
postgresql.base.ischema_names["xid8"] = postgresql.TEXT


class RecordSink(PostgresSink):
    """A stream of RECORD messages."""

    # the destination

    @cached_property
    def _destination(self) -> str:
        return self.schema_name or "public"

    @cached_property
    def _table(self) -> Table:
        """The stream as a table: its own columns, without those that say how it was loaded."""
        columns = tuple(
            WireColumn(name, self._type(schema))
            for name, schema in self.schema["properties"].items()
            if name not in tables.METADATA
        )
        return Table("", self._destination, self.table_name, columns, tuple(self.key_properties), "INCREMENTAL")

    def _type(self, schema: dict[str, Any]) -> str:
        named = schema.get("x-sql-datatype")
        if named and self._connection.execute("select to_regtype(%s)", [_bare(named)]).fetchone() != (None,):
            return str(named)
        return str(self.connector.to_sql_type(schema).compile(dialect=postgresql.dialect()))

    @cached_property
    def _connection(self) -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] = self._target_warehouse.connect()
        return connection

    def __init__(self, target: Any, *args: Any, **kwargs: Any) -> None:
        """Initialize the sink."""
        self._target_warehouse = target.warehouse
        super().__init__(target, *args, **kwargs)

    def setup(self) -> None:
        """Make the table, or the columns that it lacks."""
        self.append_only = not self.key_properties
        tables.ensure_schema(self._connection, self._destination)
        with self._connection.transaction():
            tables.ensure_table(self._connection, self._destination, self._table, keep_types=True)
            tables.ensure_xid_index(self._connection, self._destination, self._table.name)
        self._types = tables.columns_of(self._connection, self._destination, self._table.name)

    # the records

    def process_batch(self, context: dict[str, Any]) -> None:
        """Load a batch in one transaction, each row with one write."""
        records = self._last_of_each_key(context["records"])
        # metadata that the target is told to leave out stays null
        columns = [name for name in self.schema["properties"] if name != tables.LOADED_XID]
        target = sql.Identifier(self._destination, self._table.name)
        stage = sql.Identifier("pg_temp", "records")
        with self._connection.transaction():
            self._connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE records ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                    merge.names(columns), target
                )
            )
            self._copy(stage, columns, records)
            statement = merge.upsert_records(
                stage,
                target,
                columns=columns,
                compared=[name for name in columns if name not in tables.METADATA or name == "_sdc_deleted_at"],
                key=self._table.key,
            )
            row = self._connection.execute(merge.counted(statement)).fetchone()
        assert row
        self._rows.count(Written(*row))

    def _last_of_each_key(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.append_only:
            return records
        return list({tuple(record[key] for key in self._table.key): record for record in records}.values())

    def _copy(self, stage: sql.Composable, columns: list[str], records: list[dict[str, Any]]) -> None:
        written = [(name, self._converter(name)) for name in columns]
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(stage, merge.names(columns))
        with self._connection.cursor() as cursor, cursor.copy(copy) as writer:
            for record in records:
                writer.write_row(
                    [None if (value := record.get(name)) is None else convert(value) for name, convert in written]
                )

    def _converter(self, name: str) -> Callable[[Any], Any]:
        """Return what makes a record's value one that COPY takes."""
        type_ = self._types[name]
        schema = self.schema["properties"][name]
        if type_ in {"json", "jsonb"}:
            return json.dumps
        if type_ == "bytea" and schema.get("contentEncoding") == "base16":
            return bytes.fromhex
        if type_.endswith("[]"):
            return lambda value: value if isinstance(value, list) else [value]
        return self._text

    def _text(self, value: Any) -> Any:
        if isinstance(value, Mapping | list):
            return json.dumps(value)
        if isinstance(value, str) and "\0" in value and self.config.get("sanitize_null_text_characters"):
            return value.replace("\0", "\ufffd")
        return value

    @cached_property
    def _rows(self) -> WrittenCounters:
        return WrittenCounters(self.stream_name)

    def clean_up(self) -> None:
        """Log what became of the rows, and leave."""
        super().clean_up()
        self._rows.close()
        self._connection.close()


def _bare(type_: str) -> str:
    """Return a type's name without its modifiers."""
    head, _, tail = type_.partition("(")
    return head + tail.partition(")")[2]
