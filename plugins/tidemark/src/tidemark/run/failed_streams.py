"""Records in the warehouse's history why streams failed that the target never saw, or could not end itself.

The target records what fails while it loads. It does not know of a stream that the tap could not read, nor of a run
that ended before its streams began.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core import advisory_locks
from singer_postgres.core.errors import TableMissingError
from singer_postgres.core.warehouse import run_history, state_table
from singer_postgres.core.warehouse.run_history import StreamRun
from tidemark.errors import BusyError, TidemarkError
from tidemark.project import connections, database_settings, meltano_project, resolved_settings, selection
from tidemark.run.events import Failure
from tidemark.run.outcome import BlockOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tidemark.project.database_settings import Warehouse
    from tidemark.project.directory import Project

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger(__name__)
_SCHEMA = "default_target_schema"
# only the target deletes old records, when it loads the stream
_FOR_EVER_DAYS = 36_500.0
_SOURCE = "select source, table_name from {} where stream = %s order by loaded_at desc limit 1"
# the streams of this run that did not end, and those of the run before that this one did not come to
_UNENDED = """
    select stream, table_name, true from {runs} where run_id = %(run)s and outcome = 'running' and ended_at is null
    union
    select stream, table_name, false from {runs} where run_id = (
        select run_id from {runs} where run_id <> %(run)s and run_id not like 'reconcile-%%'
        order by started_at desc limit 1
    ) and stream not in (select stream from {runs} where run_id = %(run)s)
"""


@contextmanager
def recorded(project: Project, names: Iterable[str], run_id: str) -> Iterator[None]:
    """Record an error that ends a run before Meltano starts.

    Args:
        names: the run's blocks, such as `tap-postgres target-postgres`.
    """
    try:
        yield
    except TidemarkError as error:
        failure = Failure.of(error)
        blocks = [BlockOutcome(each, success=False, failures=[failure]) for each in names]
        with suppress(TidemarkError):
            record(project, database_settings.warehouse(project), blocks, run_id)
        raise


def record(project: Project, warehouse: Warehouse, blocks: Iterable[BlockOutcome], run_id: str) -> None:
    """Record the failures of the blocks that load, if the warehouse answers."""
    for block in blocks:
        # a run that another one keeps out says nothing about the streams
        if block.tap and (block.success is False or block.failures) and block.failure().code != BusyError.code:
            try:
                schema = _schema(project, block.names.split()[-1])
                if schema is not None:
                    with connections.connect(warehouse) as connection:
                        selects = selection.selects(meltano_project.find(project), block.tap)
                        only = block.streams
                        _record(
                            connection,
                            schema,
                            block,
                            run_id,
                            lambda stream: selects(stream) and (only is None or stream in only),  # noqa: B023
                        )
            except Exception as error:  # noqa: BLE001 - the run itself reports its failure; this is one more record of it
                _LOGGER.debug("The failure could not be recorded: %s", error)


def _schema(project: Project, target: str) -> str | None:
    """Return the schema that a target loads into; None for a target that has no such setting."""
    found = resolved_settings.read(project, target, [_SCHEMA]).get(_SCHEMA)
    return found.value if found else None


def _record(
    connection: Connection, schema: str, block: BlockOutcome, run_id: str, is_selected: Callable[[str], bool]
) -> None:
    runs = run_history.TABLE.in_statement(schema)
    name = sql.Identifier(schema, run_history.TABLE.name).as_string()
    found = connection.execute("select to_regclass(%s)", [name]).fetchone()
    if not found or found[0] is None:
        # nothing was ever loaded here
        return
    failures: dict[str, Failure] = {
        failure.stream: failure
        for failure in block.failures
        # a missing stream that the block has forgiven is no failure
        if failure.stream and (failure.code != TableMissingError.code or failure.stream in block.missing)
    }
    if block.success is False:
        whole = block.failure()
        locks = advisory_locks.held(connection)
        for stream, table, begun in connection.execute(sql.SQL(_UNENDED).format(runs=runs), {"run": run_id}).fetchall():
            # another run may be loading it
            free = advisory_locks.key("tidemark load", schema, table) not in locks
            if free and (begun or is_selected(stream)):
                failures.setdefault(stream, whole)
    for stream, failure in failures.items():
        done = connection.execute(
            sql.SQL("select 1 from {} where run_id = %s and stream = %s and outcome <> 'running'").format(runs),
            [run_id, stream],
        ).fetchone()
        if not done:
            source, table = _known(connection, schema, stream)
            run = StreamRun(schema, source, stream, run_id, table, _FOR_EVER_DAYS)
            run.record_failure(connection, failure.message, failure.code, alone=False)


def _known(connection: Connection, schema: str, stream: str) -> tuple[str, str]:
    """Return a stream's source and table, as far as the warehouse knows them."""
    row = connection.execute(sql.SQL(_SOURCE).format(state_table.TABLE.in_statement(schema)), [stream]).fetchone()
    return (row[0], row[1]) if row else ("", stream.partition("-")[2])
