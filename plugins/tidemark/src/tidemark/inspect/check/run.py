"""The whole check: asks both databases and Meltano, and collects what there is to say."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core.errors import SingerPostgresError, one_line
from singer_postgres.core.source import limits, sequences, start_date
from tidemark.errors import UnreachableError
from tidemark.inspect.check import relations, servers, source, streams, warehouse, watching
from tidemark.inspect.check.finding import Finding, Level
from tidemark.local import databases
from tidemark.project import meltano_state as state
from tidemark.project import plugin_settings
from tidemark.project.connections import UNREACHABLE, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.inspect.check.streams import Stream
    from tidemark.project.directory import Project
    from tidemark.project.settings import DatabaseSettings, Source

# One snapshot, or beside DDL a table would have columns of types that are gone. Types are then told with their schemas,
# nothing of a user's own takes the place of the system's, and a table that someone alters, which can't be measured, is
# not waited for long. All this for a transaction alone: settings of a session would stay behind in a pool, for whoever
# gets it next.
_READING = (
    "set transaction isolation level repeatable read, read only; "
    "set local search_path = ''; set local lock_timeout = '10s'"
)


def check(project: Project) -> list[Finding]:
    """Return all that was found, what is in order included.

    Raises:
        UnreachableError: a database does not answer, or not to the end.
        TidemarkError: an embedded server can't be started, or Meltano's configuration can't be read.
    """
    databases.try_own(project, any_pool=True)
    source_side, warehouse_side = databases.bring_up(project)
    configuration = streams.configuration(project)
    with _session(source_side) as connection:
        source_server = servers.read(source_side, connection)
        found = servers.findings("source", source_server)
        with connection.transaction():
            connection.execute(_READING)
            selected, about_source = _source(source_side, connection, configuration)
            types = {relations.extension_type(each) for stream in selected for each in stream.columns}
            extensions = relations.extensions(connection, types)
        found += about_source
    with _session(warehouse_side) as connection:
        warehouse_server = servers.read(warehouse_side, connection)
        found += servers.findings("warehouse", warehouse_server)
        found += servers.unseen(
            plugin_settings.beyond_variables(project, state.TARGET, type(warehouse_side).model_fields)
        )
        with connection.transaction():
            connection.execute(_READING)
            found += warehouse.read(connection, warehouse_side.default_target_schema, selected, extensions)
    return found + servers.clocks(source_server, warehouse_server)


def _source(
    side: Source, connection: psycopg.Connection[Any], configuration: streams.Configuration
) -> tuple[list[Stream], list[Finding]]:
    """Return the selected streams, and what there is to say of them and of the role that reads them."""
    all_relations, left_out = relations.read(connection, configuration.schemas)
    discovered = streams.discovered(configuration, all_relations)
    selected = streams.selected(configuration, discovered)
    described = [stream.relation.described for stream in selected if stream.relation.described]
    details = relations.details(connection, described)
    seen = watching.read(connection)
    found = list(watching.findings(seen, incremental=any(stream.incremental for stream in selected)))
    if side.embedded and not all_relations:
        what = "it is empty: `tidemark pipeline` or `tidemark demo load` will make the demo shop in it"
        found.append(Finding("source", Level.note, what))
    else:
        found += streams.unmatched(configuration, all_relations, discovered, selected)
    found += [Finding("source", Level.warning, str(each)) for each in left_out]
    try:
        start_date.parsed(configuration.start_date)
    except SingerPostgresError as error:
        found.append(Finding("source", Level.error, str(error).rstrip(".")))
    in_order = []
    for stream in selected:
        about = source.findings(
            stream,
            details[stream.relation.oid],
            configuration,
            seen.role,
            lambda type_: relations.has_order(connection, type_),
        )
        about += _refusals(connection, stream, details[stream.relation.oid], configuration)
        found += about
        if not about:
            in_order.append(stream.name)
    if in_order:
        count = f"{len(in_order)} stream{'s are' if len(in_order) > 1 else ' is'} in order"
        found.append(Finding("source", Level.ok, f"{count}: {', '.join(in_order)}"))
    return selected, found


def _refusals(
    connection: psycopg.Connection[Any],
    stream: Stream,
    details: relations.Details,
    configuration: streams.Configuration,
) -> list[Finding]:
    """Return in the tap's words why it refuses a stream: for its width, or for the sequence of its replication key."""
    relation = stream.relation.described
    assert relation
    masks = configuration.masks.get(stream.name) or {}
    # the key is read whether selected or not
    names = {*(column.name for column in stream.columns), *(stream.key or details.key)}
    columns = [column for column in relation.columns if column.name in names]
    found = []
    try:
        limits.refuse(connection, relation, columns, masks)
    except SingerPostgresError as error:
        found.append(str(error).removeprefix(f"{relation} "))
    if stream.incremental and stream.replication_key:
        sequence = sequences.filling(connection, relation.oid, stream.replication_key)
        try:
            if sequence:
                sequences.refuse_down(sequence, stream.name, stream.replication_key)
        except SingerPostgresError as error:
            found.append(str(error))
    return [Finding("source", Level.error, what.rstrip("."), stream=stream.name) for what in found]


@contextmanager
def _session(side: DatabaseSettings) -> Iterator[psycopg.Connection[Any]]:
    try:
        with connect(side, any_pool=True) as connection:
            # a statement prepared in one session is not there in the next, if a pooler changes them
            connection.prepare_threshold = None
            yield connection
    except psycopg.OperationalError as error:
        reason = one_line(error)
        raise UNREACHABLE.get(side.side, UnreachableError)(
            f"The {side} did not answer to the end: {reason}; see to that and run this again."
        ) from error
