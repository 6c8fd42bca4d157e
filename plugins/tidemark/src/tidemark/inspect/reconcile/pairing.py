"""Prepares a stream's comparison: opens both databases as tap and target do, and pairs the source's table with raw."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq, sql

from singer_postgres.core import poolers, session
from singer_postgres.core.source import identity, relations, start_date, stream_query
from singer_postgres.core.source.replication_key import Lookback, ReplicationKey
from singer_postgres.core.warehouse import other_source, partitions, state_table, tables
from singer_postgres.core.wire import Table
from tidemark.errors import TidemarkError, UsageError
from tidemark.inspect.check import relations as checked
from tidemark.inspect.check import streams
from tidemark.inspect.reconcile.hash_queries import ComparedStream
from tidemark.local import databases
from tidemark.project import connections, lock_watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tidemark.inspect.check.streams import Configuration, Stream
    from tidemark.project.database_settings import Source, Warehouse
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

    Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Endpoints:
    """A source's database, the warehouse, and the selected streams.

    Attributes:
        warehouse: with the raw schema of the source.
        source_id: the source's identity; see `identity.identity`.
    """

    definition: SourceDefinition
    source: Source
    warehouse: Warehouse
    configuration: Configuration
    selected: dict[str, Stream]
    source_id: str

    @classmethod
    def of(cls, project: Project, definition: SourceDefinition, streams_named: Sequence[str] = ()) -> Endpoints:
        """Read a source's settings, its selected streams and its identity.

        Raises:
            UsageError: one of these streams is not selected.
            TidemarkError: a database can't be reached or used.
        """
        databases.try_own(project, [definition])
        source, warehouse = databases.bring_up(project, definition)
        configuration = streams.configuration(project, definition)
        with connections.connect(source) as connection:
            with connection.transaction():
                # one snapshot, as in the tap's discovery
                connection.execute("set transaction isolation level repeatable read, read only")
                all_relations, _ = checked.read(connection, configuration.schemas)
            found = streams.discovered(configuration, all_relations)
            source_id = identity.identity(connection)
        selected = {stream.name: stream for stream in streams.selected(configuration, found)}
        if unknown := [name for name in streams_named if name not in selected]:
            known = ", ".join(sorted(selected)) or "none"
            names = ", ".join(map(definition.shown, unknown))
            raise UsageError(f"No such stream is selected: {names}; selected are {known}.")
        return cls(definition, source, warehouse, configuration, selected, source_id)

    @contextmanager
    def connected(self) -> Iterator[tuple[Connection, Connection]]:
        """Connect to both databases. The source's session is read-only and has the masks' key, like the tap's."""
        with connections.connect(self.source) as source, connections.connect(self.warehouse) as warehouse:
            source.execute(session.statements(source.info.server_version, lock_timeout_s=30))
            source.execute("SET row_security = off; SET default_transaction_read_only = on")
            if self.configuration.mask_secret:
                source.execute(stream_query.mask_key_statement(self.configuration.mask_secret))
            warehouse.execute(session.statements(warehouse.info.server_version, lock_timeout_s=60))
            yield source, warehouse

    @contextmanager
    def sessions(self) -> Iterator[Sessions]:
        """Keep the sessions of one stream for the next: to open them takes longer than to compare a small table."""
        kept = Sessions(self)
        try:
            yield kept
        finally:
            kept.close()

    @contextmanager
    def giving_way(self, source: Connection, warehouse: Connection) -> Iterator[None]:
        """End both sessions if another one waits to alter a table that either of them reads.

        Raises:
            SessionEndedError: another session waited.
        """
        pids = poolers.server_pid(source), poolers.server_pid(warehouse)
        with (
            lock_watch.giving_way(self.source, pids[0], let_go=warehouse.cancel),
            lock_watch.giving_way(self.warehouse, pids[1], let_go=source.cancel),
        ):
            yield

    def pair(
        self, source: Connection, warehouse: Connection, stream: Stream, *, since: str | None = None
    ) -> tuple[ComparedStream, Table]:
        """Return the stream's comparison, and its table as the tap describes it to the target.

        Args:
            since: a value of the replication key; earlier rows are not compared.

        Raises:
            TidemarkError: the stream can't be compared, or a comparison would mislead.
        """
        name, configuration = stream.name, self.configuration
        relation = relations.find(source, *stream.relation.path)
        if relation is None:
            raise TidemarkError(f"{name}: the source no longer has this table.")
        if relation.hides_rows:
            raise TidemarkError(
                f"{name}: row-level security hides rows of {relation} from this role, and they would seem deleted. "
                "Let the role see all: ALTER ROLE … BYPASSRLS;"
            )
        key = stream.key or relation.key
        begin = None
        if stream.incremental and (date := start_date.parsed(configuration.start_date)) is not None:
            begin = start_date.condition(date, self.replication_key(stream, relation))
        selection = stream_query.stream_query(
            relation,
            [column.name for column in stream.columns],
            key=key,
            masks=configuration.masks.get(name, {}),
            where=[*configuration.where.get(name, ()), *([begin] if begin else [])],
        )
        schema = self.warehouse.default_target_schema
        raw_types = tables.columns_of(warehouse, schema, relation.name)
        bookmark = self.loaded_up_to(source, warehouse, stream)
        if missing := {column.name for column in selection.columns} - raw_types.keys():
            columns = ", ".join(sorted(missing))
            raise TidemarkError(f"{name}: {schema}.{relation.name} has no column {columns}; run the pipeline.")
        pending = None
        if bookmark is not None:
            pending = self.replication_key(stream, relation).bound(source, bookmark)
        bounds = None if since is None else _since(since, stream, relation, raw_types)
        if begin and stream.replication_key not in selection.masks and stream.replication_key in raw_types:
            # rows from before start_date in the warehouse no longer belong to the stream
            also = sql.SQL(begin)
            bounds = (also, also) if bounds is None else (bounds[0], sql.SQL(" AND ").join([bounds[1], also]))
        found_as = partitions.find(warehouse, schema, relation.name)
        column = found_as.column if found_as and found_as.column in key else None
        pair = ComparedStream(selection, key, schema, raw_types, pending, bounds, column)
        table = Table(self.source_id, relation.schema, relation.name, selection.wire_columns(), key, "INCREMENTAL")
        return pair, table

    def loaded_up_to(self, source: Connection, warehouse: Connection, stream: Stream) -> str | None:
        """Return the bookmark up to which the stream is loaded; None for FULL_TABLE.

        Raises:
            TidemarkError: the stream was not loaded, or from another database, or this standby lags behind the
                loaded rows.
        """
        name, table = stream.name, stream.relation.name
        source_id, schema = self.source_id, self.warehouse.default_target_schema
        there = warehouse.execute("select to_regclass(%s)", [f'"{schema}"."{state_table.TABLE.name}"']).fetchone()
        rows = []
        if there and there[0]:
            rows = warehouse.execute(
                sql.SQL(
                    "SELECT source, bookmark, position::text FROM {} WHERE stream = {} AND table_name = {} "
                    "AND (has_rows OR extracted_at IS NOT NULL)"
                ).format(sql.Identifier(schema, state_table.TABLE.name), sql.Literal(name), sql.Literal(table))
            ).fetchall()
        own = next((row for row in rows if row[0] == source_id), None)
        if own is None and rows:
            raise TidemarkError(
                f"{name}: {schema}.{table} was loaded from another database ({rows[0][0]}; this one is {source_id}): "
                f"point {self.definition.prefix}_HOST and _DATABASE at that one; or, if it is the same and moved: "
                + other_source.moved(schema, now=source_id, was=rows[0][0])
            )
        if own is None:
            raise TidemarkError(f"{name} has not been loaded into {schema}.{table}; run the pipeline first.")
        _, bookmark, position = own
        row = source.execute(
            "select pg_is_in_recovery() and pg_last_wal_replay_lsn() < %s::pg_lsn, pg_last_xact_replay_timestamp()",
            [position],
        ).fetchone()
        if row and row[0]:
            raise TidemarkError(
                f"{name}: this source is a standby that has its primary's rows up to {row[1]}, and the warehouse has "
                "later ones; wait until it has caught up."
            )
        return bookmark if stream.incremental else None

    def replication_key(self, stream: Stream, relation: relations.Relation) -> ReplicationKey:
        """Return the replication key of an INCREMENTAL stream, as the tap uses it.

        Raises:
            TidemarkError: the source's table lacks the column.
        """
        columns = {column.name: column for column in relation.columns}
        if stream.replication_key not in columns:
            raise TidemarkError(
                f"{stream.name} is INCREMENTAL, and {relation} has no column "
                f"{stream.replication_key or '(no replication-key is set)'}; correct its replication-key."
            )
        lookback = Lookback(
            usual=timedelta(seconds=self.configuration.lookback_seconds),
            longest=timedelta(),
            zone=self.configuration.timestamp_timezone,
        )
        return ReplicationKey(columns[stream.replication_key], lookback)


class Sessions:
    """Sessions in both databases, which are opened again after an error."""

    def __init__(self, ends: Endpoints) -> None:
        """Open none yet."""
        self._ends = ends
        self._stack = ExitStack()
        self._open: tuple[Connection, Connection] | None = None

    @contextmanager
    def connected(self) -> Iterator[tuple[Connection, Connection]]:
        """Yield the sessions of `Endpoints.connected`. They must not be in a transaction at the end."""
        try:
            if self._open is None or not all(map(_answers, self._open)):
                self.close()
                self._open = self._stack.enter_context(self._ends.connected())
            yield self._open
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the sessions."""
        self._open = None
        self._stack.close()


def _answers(connection: Connection) -> bool:
    """Return whether a session is still there, and in no transaction."""
    with suppress(psycopg.Error):
        connection.execute("select 1")
        return connection.info.transaction_status is pq.TransactionStatus.IDLE
    return False


def _since(
    since: str, stream: Stream, relation: relations.Relation, raw_types: dict[str, str]
) -> tuple[sql.Composable, sql.Composable]:
    """Return the conditions of `--since`, on the source's rows and on the warehouse's."""
    column = stream.replication_key
    if not stream.incremental or column not in raw_types:
        what = "--since needs INCREMENTAL streams whose replication key is loaded"
        raise UsageError(f"{what}, and {stream.name} is not one; omit --since, or name other streams.")
    declared = {each.name: each.declared for each in relation.columns}[column]
    name, value = sql.Identifier(column), sql.Literal(since)
    return (
        sql.SQL("{} >= {}::{}").format(name, value, sql.SQL(declared)),
        sql.SQL("{} >= {}::{}").format(name, value, sql.SQL(raw_types[column])),
    )
