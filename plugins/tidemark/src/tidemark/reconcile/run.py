"""The whole reconciliation: which streams, what of them, what is refused, and in what order."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres import session
from singer_postgres.errors import BusyError as LockedError
from singer_postgres.errors import SingerPostgresError
from singer_postgres.tap import identity, relations, select
from singer_postgres.tap.watermark import Lookback, ReplicationKey
from singer_postgres.target import bookmarks, tables
from singer_postgres.target.connections import Warehouse as TargetWarehouse
from singer_postgres.target.runlock import RunLock
from singer_postgres.wire import Table
from tidemark import connections, databases
from tidemark.check import relations as checked
from tidemark.check import streams
from tidemark.errors import BusyError, TidemarkError, UsageError
from tidemark.reconcile.compare import Difference, compare, recheck
from tidemark.reconcile.repair import refuse_deletes, repair
from tidemark.reconcile.sides import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from singer_postgres.target.written import Written
    from tidemark.check.streams import Configuration, Stream
    from tidemark.project import Project
    from tidemark.settings import Source, Warehouse

    Connection = psycopg.Connection[Any]

_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


@dataclass(frozen=True)
class Options:
    """What is asked for. `since` is a value of the replication key."""

    streams: tuple[str, ...] = ()
    repair: bool = False
    since: str | None = None
    allowed_percent: float = 5


@dataclass(frozen=True)
class Result:
    """What came of one stream: what differs (before a repair), and what a repair wrote; or why there is nothing."""

    stream: str
    found: Difference | None = None
    repaired: Written | None = None
    error: str | None = None

    @property
    def equal(self) -> bool:
        """Whether both sides are the same now, as far as the next run doesn't make them."""
        return self.found is not None and (self.found.equal or self.repaired is not None)


def reconcile(project: Project, options: Options, *, began: Callable[[str], None]) -> list[Result]:
    """Compare the streams, and repair what differs if that is asked for.

    Args:
        began: called with each stream's name before it is compared.

    Raises:
        UsageError: a stream that is named is not selected.
        BusyError: a run loads a stream that is to be repaired.
        TidemarkError: a database can't be reached or used.
    """
    databases.try_own(project)
    source_side, warehouse_side = databases.bring_up(project)
    configuration = streams.configuration(project)
    with connections.connect(source_side) as connection:
        found = streams.discovered(configuration, checked.read(connection, configuration.schemas))
    selected = {stream.name: stream for stream in streams.selected(configuration, found)}
    if unknown := [name for name in options.streams if name not in selected]:
        known = ", ".join(sorted(selected))
        raise UsageError(f"No such stream is selected: {', '.join(unknown)}; selected are {known}.")
    results = []
    for name in options.streams or sorted(selected):
        began(name)
        work = _Work(source_side, warehouse_side, configuration, selected[name], options)
        try:
            results.append(work.run())
        except LockedError as error:
            raise BusyError(str(error)) from error
        except (TidemarkError, SingerPostgresError) as error:
            results.append(Result(name, error=" ".join(str(error).split())))
        except psycopg.Error as error:
            results.append(Result(name, error=f"{name}: {' '.join(str(error).split())}"))
    return results


@dataclass(frozen=True)
class _Work:
    """One stream."""

    source_side: Source
    warehouse_side: Warehouse
    configuration: Configuration
    stream: Stream
    options: Options

    def run(self) -> Result:
        name = self.stream.name
        with _source(self.source_side, self.configuration) as source, _warehouse(self.warehouse_side) as warehouse:
            # the source's snapshot first: what the warehouse has beyond it came later
            source.execute(_SNAPSHOT)
            relation = relations.named(source, *self.stream.relation.path)
            if relation is None:
                raise TidemarkError(f"{name}: the source has no such table any more.")
            pair, table = self._pair(source, warehouse, relation)
            source.execute("select pg_current_snapshot()")
            warehouse.execute(_SNAPSHOT)
            found = compare(source, warehouse, pair)
            source.execute("ROLLBACK")
            warehouse.execute("ROLLBACK")
            if pair.key:
                found = recheck(source, warehouse, pair, found)
            if not self.options.repair or found.equal:
                return Result(name, found)
            if not pair.key:
                raise TidemarkError(
                    f"{name} has no key, so rows can't be repaired one by one; a run reads it whole and replaces them."
                )
            return self._repair(source, warehouse, pair, table, found)

    def _repair(self, source: Connection, warehouse: Connection, pair: Pair, table: Table, found: Difference) -> Result:
        lock = RunLock(TargetWarehouse(lambda: connections.parameters(self.warehouse_side), pair.schema))
        try:
            lock.take(self.stream.name, pair.schema, table.name)
            found = recheck(source, warehouse, pair, found)
            refuse_deletes(self.stream.name, found, allowed_percent=self.options.allowed_percent)
            written = repair(source, warehouse, pair, table, stream=self.stream.name, found=found)
        finally:
            lock.close()
        return Result(self.stream.name, found, written)

    def _pair(self, source: Connection, warehouse: Connection, relation: relations.Relation) -> tuple[Pair, Table]:
        """Return what is compared.

        Raises:
            TidemarkError: it can't be, or shouldn't.
        """
        name, configuration = self.stream.name, self.configuration
        if relation.hides_rows:
            raise TidemarkError(
                f"{name}: row-level security hides rows of {relation} from this role, and they would seem deleted. "
                "Let the role see all: ALTER ROLE … BYPASSRLS;"
            )
        key = self.stream.key or relation.key
        where = configuration.where.get(name, ())
        masks = configuration.masks.get(name, {})
        selection = select.select(
            relation, [column.name for column in self.stream.columns], key=key, masks=masks, where=where
        )
        schema = self.warehouse_side.default_target_schema
        raw_types = tables.columns_of(warehouse, schema, relation.name)
        source_id = identity.identity(source)
        bookmark = self._bookmark(source, warehouse, source_id, schema, relation.name)
        if missing := {column.name for column in selection.columns} - raw_types.keys():
            columns = ", ".join(sorted(missing))
            raise TidemarkError(f"{name}: {schema}.{relation.name} has no column {columns}; run the pipeline.")
        pair = Pair(
            selection,
            key,
            schema,
            raw_types,
            pending=self._replication_key(selection).bound(source, bookmark) if bookmark is not None else None,
            since=self._since(relation, raw_types),
        )
        table = Table(source_id, relation.schema, relation.name, selection.wire_columns(), key, "INCREMENTAL")
        return pair, table

    def _bookmark(
        self, source: Connection, warehouse: Connection, source_id: str, schema: str, table: str
    ) -> str | None:
        """Return up to where the stream was loaded; None if it is read whole.

        Raises:
            TidemarkError: it was not loaded, or not from here, or this standby lags behind what was.
        """
        name = self.stream.name
        there = warehouse.execute("select to_regclass(%s)", [f'"{schema}"."{bookmarks.TABLE}"']).fetchone()
        rows = []
        if there and there[0]:
            rows = warehouse.execute(
                sql.SQL(
                    "SELECT source, bookmark, extracted_at FROM {} WHERE stream = {} AND table_name = {} "
                    "AND (has_rows OR extracted_at IS NOT NULL)"
                ).format(sql.Identifier(schema, bookmarks.TABLE), sql.Literal(name), sql.Literal(table))
            ).fetchall()
        own = next((row for row in rows if row[0] == source_id), None)
        if own is None and rows:
            raise TidemarkError(
                f"{name}: {schema}.{table} was loaded from another database ({rows[0][0]}; this one is {source_id}): "
                "point TAP_POSTGRES_HOST and _DATABASE at that one."
            )
        if own is None:
            raise TidemarkError(f"{name} has not been loaded into {schema}.{table}; run the pipeline first.")
        _, bookmark, extracted_at = own
        standby = source.execute("select pg_is_in_recovery(), pg_last_xact_replay_timestamp()").fetchone()
        if standby and standby[0] and extracted_at and (standby[1] is None or standby[1] < extracted_at):
            raise TidemarkError(
                f"{name}: this source is a standby that has its primary's rows up to {standby[1]}, and the warehouse "
                f"has those of {extracted_at}; wait until it has caught up."
            )
        return bookmark if self.stream.incremental else None

    def _replication_key(self, selection: select.Selection) -> ReplicationKey:
        columns = {column.name: column for column in selection.relation.columns}
        lookback = Lookback(
            usual=timedelta(seconds=self.configuration.lookback_seconds),
            longest=timedelta(),
            zone=self.configuration.timestamp_timezone,
        )
        return ReplicationKey(columns[self.stream.replication_key or ""], lookback)

    def _since(
        self, relation: relations.Relation, raw_types: dict[str, str]
    ) -> tuple[sql.Composable, sql.Composable] | None:
        since, column = self.options.since, self.stream.replication_key
        if since is None:
            return None
        if not self.stream.incremental or column not in raw_types:
            what = "--since is for INCREMENTAL streams whose replication key is loaded"
            raise UsageError(f"{what}, and {self.stream.name} is none; leave it out, or name others.")
        declared = {each.name: each.declared for each in relation.columns}[column]
        name, value = sql.Identifier(column), sql.Literal(since)
        return (
            sql.SQL("{} >= {}::{}").format(name, value, sql.SQL(declared)),
            sql.SQL("{} >= {}::{}").format(name, value, sql.SQL(raw_types[column])),
        )


@contextmanager
def _source(side: Source, configuration: Configuration) -> Iterator[Connection]:
    """Connect as the tap does: read only, and with the key of the masks."""
    with connections.connect(side) as connection:
        connection.execute(session.statements(lock_timeout_s=30))
        connection.execute("SET row_security = off; SET default_transaction_read_only = on")
        if configuration.mask_secret:
            connection.execute(select.mask_key_statement(configuration.mask_secret))
        yield connection


@contextmanager
def _warehouse(side: Warehouse) -> Iterator[Connection]:
    with connections.connect(side) as connection:
        connection.execute(session.statements(lock_timeout_s=60))
        yield connection


def names(results: Sequence[Result]) -> str:
    """Return the names of the streams that are not equal."""
    return " ".join(result.stream for result in results if not result.equal and result.error is None)
