"""RECORD messages, from any tap: staged by COPY and brought in by the same statement as chunks are.

Columns have the types that the MeltanoLabs target gives them, but where the SCHEMA message names a column's PostgreSQL
type; tables are made and widened as those of chunks are.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql
from singer_sdk.helpers._typing import get_datelike_property_type
from sqlalchemy.dialects import postgresql
from target_postgres.sinks import PostgresSink

from singer_postgres.errors import SingerPostgresError
from singer_postgres.target import merge, tables
from singer_postgres.target.validation import RecordValidator
from singer_postgres.target.values import converter
from singer_postgres.target.written import Written, WrittenCounters
from singer_postgres.wire import Table, WireColumn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg
    from singer_sdk.helpers.conform import DatetimeErrorTreatmentEnum

    from singer_postgres.target.target import TargetPostgres

# of a table's or a column's name, in PostgreSQL as it is commonly built
_NAME_BYTES = 63
# by which a record is told from the row that is there. A row keeps the version of its table's last activation, or else
# it would be taken for one that is gone.
_COMPARED_METADATA = frozenset({"_sdc_deleted_at", "_sdc_table_version"})
# made here, and as they should be
_OWN_INSTANTS = frozenset({"_sdc_received_at", "_sdc_batched_at"})


class RecordSink(PostgresSink):
    """A stream of RECORD messages."""

    def __init__(self, target: TargetPostgres, *args: Any, **kwargs: Any) -> None:
        """Initialize the sink."""
        self._target = target
        super().__init__(target, *args, **kwargs)

    # the destination

    @cached_property
    def _destination(self) -> str:
        return self.schema_name or "public"

    @cached_property
    def _name(self) -> sql.Identifier:
        return sql.Identifier(self._destination, self.table_name)

    @cached_property
    def _columns(self) -> list[str]:
        """The columns that come with records; metadata that the target is told to leave out stays null."""
        return [name for name in self.schema["properties"] if name != tables.LOADED_XID]

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with self._target.pool.connection() as connection, connection.transaction():
            yield connection

    def setup(self) -> None:
        """Make the table, or the columns that it lacks.

        Raises:
            BusyError: another run loads it.
            SingerPostgresError: it can't hold the stream, or another stream goes into it.
        """
        self._target.claim(self.stream_name, self._destination, self.table_name)
        self._target.lock.take(self.stream_name, self._destination, self.table_name)
        self.append_only = not self.key_properties
        for name in (self.table_name, *self.schema["properties"]):
            if len(name.encode()) > _NAME_BYTES:
                msg = (
                    f"{self.stream_name}: the name {name} has {len(name.encode())} bytes, and PostgreSQL would cut it "
                    f"at {_NAME_BYTES}; rename it with stream_maps."
                )
                raise SingerPostgresError(msg)
        with self._target.pool.connection() as connection:
            tables.ensure_schema(connection, self._destination)
            table = self._described(connection)
            with connection.transaction():
                tables.ensure_table(connection, self._destination, table, keep_types=True)
                tables.ensure_xid_index(connection, self._destination, table.name)
            types = tables.columns_of(connection, self._destination, table.name)
        sanitize = bool(self.config.get("sanitize_null_text_characters"))
        base16 = bool(self.config.get("interpret_content_encoding"))
        self._converters = [
            (name, converter(types[name], self.schema["properties"][name], sanitize=sanitize, base16=base16))
            for name in self._columns
        ]

    def _described(self, connection: psycopg.Connection[Any]) -> Table:
        """Return the stream as a table: its own columns, without those that say how it was loaded."""
        columns = tuple(
            WireColumn(name, self._type(connection, schema))
            for name, schema in self.schema["properties"].items()
            if name not in tables.METADATA
        )
        return Table("", self._destination, self.table_name, columns, tuple(self.key_properties), "INCREMENTAL")

    def _type(self, connection: psycopg.Connection[Any], schema: dict[str, Any]) -> str:
        named = schema.get("x-sql-datatype")
        if named and _is_type(connection, str(named)):
            return str(named)
        own = {name: value for name, value in schema.items() if name != "x-sql-datatype"}
        return str(self.connector.to_sql_type(own).compile(dialect=postgresql.dialect()))

    # the records, one by one: what the SDK does with each, in a fraction of its time

    def get_validator(self) -> RecordValidator | None:
        """Return what validates records, if they are to be validated."""
        return RecordValidator(self.schema) if self.validate_schema else None

    def start_batch(self, context: dict[str, Any]) -> None:
        """Have states that come from now on wait for this batch."""
        context["number"] = self._target.batch_began()
        context["batched_at"] = context["batch_start_time"].isoformat()

    def _add_sdc_metadata_to_record(
        self, record: dict[str, Any], message: dict[str, Any], context: dict[str, Any]
    ) -> None:
        now = time.time()
        record["_sdc_extracted_at"] = message.get("time_extracted")
        record["_sdc_received_at"] = datetime.fromtimestamp(now, UTC).isoformat()
        record["_sdc_batched_at"] = context["batched_at"]
        record["_sdc_deleted_at"] = record.get("_sdc_deleted_at")
        record["_sdc_sequence"] = round(now * 1000)
        record["_sdc_table_version"] = message.get("version")
        record["_sdc_sync_started_at"] = self.sync_started_at

    @cached_property
    def _instants(self) -> dict[str, dict[str, Any]]:
        """The properties whose values the SDK parses."""
        return {
            name: schema
            for name, schema in self.schema["properties"].items()
            if name not in _OWN_INSTANTS and get_datelike_property_type(schema)
        }

    def _parse_timestamps_in_record(
        self, record: dict[str, Any], schema: Mapping[str, Any], treatment: DatetimeErrorTreatmentEnum
    ) -> None:
        instants = {name: value for name in self._instants if (value := record.get(name)) is not None}
        if instants:
            super()._parse_timestamps_in_record(instants, {"properties": self._instants}, treatment)
            record.update(instants)
        if not record.keys() <= schema["properties"].keys():
            # have the SDK warn of them, of each once
            unknown = {name: value for name, value in record.items() if name not in schema["properties"]}
            super()._parse_timestamps_in_record(unknown, dict(schema), treatment)

    def _after_process_record(self, context: dict[str, Any]) -> None:
        """Do nothing: the SDK logs each record's context here."""

    # their batches

    def process_batch(self, context: dict[str, Any]) -> None:
        """Load a batch in one transaction, each row with one write."""
        records = self._last_of_each_key(context["records"])
        stage = sql.Identifier("pg_temp", "records")
        statement = merge.upsert_records(
            stage,
            self._name,
            columns=self._columns,
            compared=[name for name in self._columns if name not in tables.METADATA or name in _COMPARED_METADATA],
            key=tuple(self.key_properties),
        )
        with self._transaction() as connection:
            self._target.lock.confirm(connection)
            connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE records ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                    merge.names(self._columns), self._name
                )
            )
            self._copy(connection, stage, records)
            row = connection.execute(merge.counted(statement)).fetchone()
        assert row
        self._rows.count(Written(inserted=row[0], updated=row[1]))

    def _last_of_each_key(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.append_only:
            return records
        key = tuple(self.key_properties)
        return list({tuple(_comparable(record[name]) for name in key): record for record in records}.values())

    def _copy(self, connection: psycopg.Connection[Any], stage: sql.Composable, records: list[dict[str, Any]]) -> None:
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(stage, merge.names(self._columns))
        with connection.cursor() as cursor, cursor.copy(copy) as writer:
            for record in records:
                writer.write_row(
                    [
                        None if (value := record.get(name)) is None else convert(value)
                        for name, convert in self._converters
                    ]
                )

    def mark_drained(self) -> None:
        """Note that a batch is committed, and tell the states that waited for it."""
        number = (self._context_draining or {}).get("number")
        super().mark_drained()
        if number is not None:
            self._target.batch_committed(number)

    def activate_version(self, new_version: int) -> None:
        """Delete the rows that are of an older version, or mark them as deleted."""
        if not self.config["activate_version"]:
            self.logger.warning("ACTIVATE_VERSION of '%s' is ignored: activate_version is false", self.stream_name)
            return
        self._target.drain_one(self)
        hard = bool(self.config["hard_delete"])
        with self._transaction() as connection:
            deleted = connection.execute(merge.delete_older(self._name, version=new_version, hard=hard)).rowcount
        self._rows.count(Written(deleted=deleted))

    @cached_property
    def _rows(self) -> WrittenCounters:
        return WrittenCounters(self.stream_name)

    def clean_up(self) -> None:
        """Log what became of the rows."""
        super().clean_up()
        self._rows.close()


def _is_type(connection: psycopg.Connection[Any], name: str) -> bool:
    """Return whether `name` is a type here, with its modifiers or without, and nothing but a type."""
    try:
        return connection.execute("select to_regtype(%s)", [name]).fetchone() != (None,)
    except errors.Error:
        # up to 15, what doesn't look like a type's name is an error
        return False


def _comparable(value: Any) -> Any:
    """Return a key's value as something that a dictionary can have for a key."""
    return json.dumps(value, default=str) if isinstance(value, list | dict) else value
