"""Loads RECORD messages of any tap: COPY into a temporary table, then the same merge as for chunks.

Columns have the same types as with the MeltanoLabs target, unless the SCHEMA message names a column's PostgreSQL type.
Tables are created and widened as for chunks.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql
from singer_sdk.exceptions import InvalidRecord, MissingKeyPropertiesError
from singer_sdk.helpers._typing import get_datelike_property_type
from sqlalchemy.dialects import postgresql
from target_postgres.sinks import PostgresSink

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import NameTakenError, SingerPostgresError, one_line
from singer_postgres.core.warehouse import brief_locks, merge, merge_plan, partitions, rejects, schema_changes, tables
from singer_postgres.core.warehouse.metadata_columns import METADATA
from singer_postgres.core.warehouse.row_counts import RowCounts
from singer_postgres.core.warehouse.run_history import StreamRun, Work
from singer_postgres.core.wire import Table, WireColumn, refuse_own_name
from singer_postgres.target.counters import WrittenCounters
from singer_postgres.target.validation import RecordValidator
from singer_postgres.target.values import converter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from singer_sdk.helpers.conform import DatetimeErrorTreatmentEnum

    from singer_postgres.core.warehouse.partitions import Partitions
    from singer_postgres.target.running import RunningTarget

# the longest name of a table or column in PostgreSQL, unless it was built with another limit
_NAME_BYTES = 63
# Metadata that counts when a record is compared with its row. The version counts because a later ACTIVATE_VERSION
# deletes rows of older versions, even unchanged ones.
_COMPARED_METADATA = frozenset({"_sdc_deleted_at", "_sdc_table_version"})
# errors in a record itself, which come before the database sees it
_OF_RECORDS = (InvalidRecord, MissingKeyPropertiesError, ValueError, TypeError)
# this target sets these, so they are always valid
_OWN_INSTANTS = frozenset({"_sdc_received_at", "_sdc_batched_at"})


class RecordSink(PostgresSink):
    """A sink for a stream of RECORD messages."""

    def __init__(self, target: RunningTarget, *args: Any, **kwargs: Any) -> None:
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

    _partitions: Partitions | None = None

    @property
    def _partitioning(self) -> Mapping[str, Any] | None:
        return self._target.config["raw_partitions"].get(self.stream_name)

    @cached_property
    def _columns(self) -> list[str]:
        """The columns that records bring. Metadata columns that the user turned off stay null."""
        return [name for name in self.schema["properties"] if name != schema_changes.LOADED_XID]

    @cached_property
    def history(self) -> StreamRun:
        """The stream's row in the history."""
        return StreamRun(
            self._destination,
            "",
            self.stream_name,
            self._target.run_id,
            self.table_name,
            self._target.config["history_days"],
            self.sync_started_at,
        )

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with self._target.pool.connection() as connection, connection.transaction():
            yield connection

    def setup(self) -> None:
        """Create the table, or add the columns that it lacks.

        Raises:
            BusyError: another run loads the table.
            SingerPostgresError: the table can't hold the stream, or belongs to another stream.
        """
        refuse_own_name(self.stream_name, self.table_name)
        self._target.claim(self.stream_name, self._destination, self.table_name)
        self._target.lock.take(self.stream_name, self._destination, self.table_name)
        self.append_only = not self.key_properties
        for name in (self.table_name, *self.schema["properties"]):
            if len(name.encode()) > _NAME_BYTES:
                msg = (
                    f"{self.stream_name}: the name {name} has {len(name.encode())} bytes, and PostgreSQL would cut it "
                    f"at {_NAME_BYTES}; rename it with stream_maps."
                )
                raise NameTakenError(msg)
        with self._target.pool.connection() as connection:
            tables.ensure_schema(connection, self._destination)
            self.history.ensure(connection)
            schema_changes.TABLE.ensure(connection, self._destination)
            table = self._described(connection)

            def attempt() -> Sequence[schema_changes.Change]:
                ensured = tables.ensure_table(
                    connection, self._destination, table, keep_types=True, partitioning=self._partitioning
                )
                self._partitions = ensured.partitions
                schema_changes.record(connection, self.history, ensured.changes)
                self.history.begin(connection, bookmark=None)
                return ensured.changes

            changes = brief_locks.with_brief_locks(connection, attempt, table=self._name)
            tables.ensure_xid_index(connection, self._destination, table.name)
            for change in changes:
                self.logger.warning("%s.%s: %s", self._destination, table.name, change)
            types = tables.columns_of(connection, self._destination, table.name)
        sanitize = bool(self.config.get("sanitize_null_text_characters"))
        base16 = bool(self.config.get("interpret_content_encoding"))
        self._converters = [
            (name, converter(types[name], self.schema["properties"][name], sanitize=sanitize, base16=base16))
            for name in self._columns
        ]

    def _described(self, connection: psycopg.Connection[Any]) -> Table:
        """Return the stream as a table: its own columns, without the metadata columns."""
        columns = tuple(
            WireColumn(name, self._type(connection, schema))
            for name, schema in self.schema["properties"].items()
            if name not in METADATA
        )
        return Table("", self._destination, self.table_name, columns, tuple(self.key_properties), "INCREMENTAL")

    def _type(self, connection: psycopg.Connection[Any], schema: dict[str, Any]) -> str:
        named = schema.get("x-sql-datatype")
        if named and _is_type(connection, str(named)):
            return str(named)
        if named in {"hstore", "hstore[]"}:
            # if the warehouse lacks hstore, the column is text, as for chunks
            return named.replace("hstore", "text")
        own = {name: value for name, value in schema.items() if name != "x-sql-datatype"}
        return str(self.connector.to_sql_type(own).compile(dialect=postgresql.dialect()))

    # each record: the same as the SDK does, in a fraction of its time

    def get_validator(self) -> RecordValidator | None:
        """Return the validator, if records are to be validated."""
        return RecordValidator(self.schema) if self.validate_schema else None

    def start_batch(self, context: dict[str, Any]) -> None:
        """Make later states wait for this batch."""
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
        """The properties that the SDK parses as dates or times."""
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
            # the SDK warns about unknown properties, once about each
            unknown = {name: value for name, value in record.items() if name not in schema["properties"]}
            super()._parse_timestamps_in_record(unknown, dict(schema), treatment)

    def _validate_and_parse(self, record: dict[str, Any]) -> dict[str, Any]:
        # the SDK's own method logs a traceback for each invalid record
        if self._validator is not None:
            try:
                self._validator.validate(record)
            except InvalidRecord as error:
                if self.fail_on_record_validation_exception:
                    raise
                self.logger.warning("An invalid record is loaded: stream=%s, error=%s", self.stream_name, error)
        self._parse_timestamps_in_record(record, self.schema, self.datetime_error_treatment)
        return record

    def _after_process_record(self, context: dict[str, Any]) -> None:
        """Do nothing. The SDK would log each record's context here."""

    # rejected records

    _rejected = 0
    retries = 0
    """How often a batch was loaded again after an error."""

    def reject(self, record: dict[str, Any], error: Exception) -> bool:
        """Store a record that its table can't hold, and return whether max_rejects allows it."""
        with self._transaction() as connection:
            return self._reject(connection, record, error)

    def _reject(self, connection: psycopg.Connection[Any], record: dict[str, Any], error: Exception) -> bool:
        if self._rejected >= self._target.config["max_rejects"]:
            return False
        rejects.TABLE.ensure(connection, self._destination)
        rejects.put(connection, self.history, record, error)
        self._rejected += 1
        self._counters.count(written := RowCounts(rejected=1))
        self.history.count(connection, replace(written, read=1))
        self.logger.warning("A record was rejected: stream=%s, error=%s", self.stream_name, one_line(error))
        return True

    # batches

    def process_batch(self, context: dict[str, Any]) -> None:
        """Load a batch in one transaction, with one write per row."""
        if self._target.has_failed(self.stream_name):
            return
        try:
            self._load(context["records"])
        except (*_OF_RECORDS, psycopg.Error, SingerPostgresError) as error:
            if not driver_errors.ends_one_stream(error, writing=True) and not isinstance(error, _OF_RECORDS):
                raise
            if not self._target.stream_failed(
                context["number"], self.stream_name, self.history, error, retries=self.retries
            ):
                raise

    def _load(self, batch: list[dict[str, Any]]) -> None:
        records = self._last_of_each_key(batch)
        written = RowCounts()

        def attempt() -> None:
            nonlocal written
            before = self._rejected
            try:
                with self._transaction() as connection:
                    self._target.lock.confirm(connection)
                    connection.execute(
                        sql.SQL(
                            "CREATE TEMPORARY TABLE records ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA"
                        ).format(merge.names(self._columns), self._name)
                    )
                    written = self._store(connection, records)
                    self.history.count(connection, replace(written, read=len(batch) - (self._rejected - before)))
            except BaseException:
                self._rejected = before
                raise

        # a batch with a key can be loaded again; without one, its rows may already be there
        def may_retry(error: BaseException) -> bool:
            return bool(self.key_properties) and driver_errors.is_transient(error)

        def log_retry(error: BaseException, wait_s: float) -> None:
            self.retries += 1
            self.logger.warning("Loading is retried: wait_s=%.1f, error=%s", wait_s, one_line(error))
            self._target.lock.renew()

        driver_errors.retry(attempt, is_transient=may_retry, on_retry=log_retry)
        self._counters.count(written)

    def _store(self, connection: psycopg.Connection[Any], records: list[dict[str, Any]]) -> RowCounts:
        """Store records. Reject those that can't be stored, up to max_rejects."""
        try:
            with connection.transaction():
                return self._merge(connection, records)
        except (*_OF_RECORDS, psycopg.DataError, psycopg.IntegrityError) as error:
            if self._rejected >= self._target.config["max_rejects"]:
                raise
            if len(records) == 1:
                self._reject(connection, records[0], error)
                return RowCounts()
        middle = len(records) // 2
        first, second = (self._store(connection, half) for half in (records[:middle], records[middle:]))
        return RowCounts(inserted=first.inserted + second.inserted, updated=first.updated + second.updated)

    def _merge(self, connection: psycopg.Connection[Any], records: list[dict[str, Any]]) -> RowCounts:
        stage = sql.Identifier("pg_temp", "records")
        key = tuple(self.key_properties)
        self._copy(connection, stage, records)
        within = partitions.make_room(
            connection, self._destination, self.table_name, stage, partitions=self._partitions
        )
        statement = merge.upsert_records(
            stage,
            self._name,
            columns=self._columns,
            compared=[name for name in self._columns if name not in METADATA or name in _COMPARED_METADATA],
            key=key,
            within=within,
        )
        into = merge.Into(self._name, key, self._partitions is not None, within)
        with merge_plan.rows_looked_up(connection, stage, self._name) if key else nullcontext():
            row = connection.execute(merge.counted(statement, into)).fetchone()
        connection.execute(sql.SQL("TRUNCATE {}").format(stage))
        assert row
        return RowCounts(inserted=row[0], updated=row[1])

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
        """Note that a batch is committed, and write the states that waited for it."""
        number = (self._context_draining or {}).get("number")
        super().mark_drained()
        if number is not None and self._target.has_failed(self.stream_name):
            self._target.stream_failed(number, self.stream_name, self.history, None)
        elif number is not None:
            self._target.batch_committed(number)

    def activate_version(self, new_version: int) -> None:
        """Delete rows of older versions, or mark them as deleted."""
        if not self.config["activate_version"]:
            ignored = "ACTIVATE_VERSION is ignored, because activate_version is false: stream=%s"
            self.logger.warning(ignored, self.stream_name)
            return
        self._target.drain_one(self)
        hard = bool(self.config["hard_delete"])
        with self._transaction() as connection:
            deleted = connection.execute(merge.delete_older(self._name, version=new_version, hard=hard)).rowcount
            self.history.count(connection, written := RowCounts(deleted=deleted))
        self._counters.count(written)

    @cached_property
    def _counters(self) -> WrittenCounters:
        return WrittenCounters(self.stream_name)

    def clean_up(self) -> None:
        """Log the counts of rows, and note in the history that the stream succeeded."""
        super().clean_up()
        if not self._target.has_failed(self.stream_name):
            with self._transaction() as connection:
                self.history.end(connection, work=Work(retries=self.retries))
        self._counters.close()


def _is_type(connection: psycopg.Connection[Any], name: str) -> bool:
    """Return whether `name` is a type of this server, with or without modifiers, and nothing else."""
    try:
        return connection.execute("select to_regtype(%s)", [name]).fetchone() != (None,)
    except errors.Error:
        # up to PostgreSQL 15, text that doesn't look like a type's name raises
        return False


def _comparable(value: Any) -> Any:
    """Return a key's value in a form that can be the key of a dictionary."""
    return json.dumps(value, default=str) if isinstance(value, list | dict) else value
