"""The whole check: queries both databases and Meltano, and collects the findings."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core.errors import SingerPostgresError, one_line
from singer_postgres.core.source import sequences, start_date, table_limits
from tidemark.errors import UnreachableError
from tidemark.inspect.check import relations, servers, settings, source, streams, warehouse, watching
from tidemark.inspect.check.finding import Finding, Level
from tidemark.local import databases
from tidemark.project import meltano_state as state
from tidemark.project import resolved_settings, yaml_files
from tidemark.project.connections import SNAPSHOT, UNREACHABLE, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.inspect.check.streams import Stream
    from tidemark.project.database_settings import DatabaseSettings, Source
    from tidemark.project.directory import Project


def check(project: Project) -> list[Finding]:
    """Return all findings, including what is in order.

    Raises:
        UnreachableError: a database doesn't answer, or stops answering.
        TidemarkError: an embedded server can't be started, or Meltano's configuration can't be read.
    """
    files = yaml_files.read(project)
    found = [*settings.misspelt_keys(project, files), *settings.unknown(project, files)]
    databases.try_own(project, any_pool=True)
    source_side, warehouse_side = databases.bring_up(project)
    configuration = streams.configuration(project)
    with _session(source_side) as connection:
        source_server = servers.read(source_side, connection)
        found += servers.findings("source", source_server)
        with connection.transaction():
            connection.execute(SNAPSHOT)
            selected, about_source = _source(source_side, connection, configuration)
            types = {relations.extension_type(each) for stream in selected for each in stream.columns}
            extensions = relations.extensions(connection, types)
        found += about_source
    with _session(warehouse_side) as connection:
        warehouse_server = servers.read(warehouse_side, connection)
        found += servers.findings("warehouse", warehouse_server)
        found += servers.unseen(
            resolved_settings.beyond_variables(project, state.TARGET, type(warehouse_side).model_fields)
        )
        with connection.transaction():
            connection.execute(SNAPSHOT)
            found += warehouse.read(connection, warehouse_side.default_target_schema, selected, extensions)
    return found + servers.clocks(source_server, warehouse_server)


def _source(
    side: Source, connection: psycopg.Connection[Any], configuration: streams.Configuration
) -> tuple[list[Stream], list[Finding]]:
    """Return the selected streams, and the findings about them and about the role that reads them."""
    all_relations, left_out = relations.read(connection, configuration.schemas)
    discovered = streams.discovered(configuration, all_relations)
    selected = streams.selected(configuration, discovered)
    described = [stream.relation.described for stream in selected if stream.relation.described]
    details = relations.details(connection, described)
    seen = watching.read(connection)
    found = list(watching.findings(seen, incremental=any(stream.incremental for stream in selected)))
    if side.embedded and not all_relations:
        what = "it is empty: `tidemark demo load` creates the demo shop in it; for your database, set TAP_POSTGRES_HOST"
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
    """Return the tap's own errors for a stream: about its width, or about the sequence of its replication key."""
    relation = stream.relation.described
    assert relation
    masks = configuration.masks.get(stream.name) or {}
    # the tap reads the key's columns even if they are not selected
    names = {*(column.name for column in stream.columns), *(stream.key or details.key)}
    columns = [column for column in relation.columns if column.name in names]
    found = []
    try:
        table_limits.refuse(connection, relation, columns, masks)
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
            # if a pooler changes the session, it lacks statements that were prepared in the last one
            connection.prepare_threshold = None
            yield connection
    except psycopg.OperationalError as error:
        reason = one_line(error)
        raise UNREACHABLE.get(side.side, UnreachableError)(
            f"The {side} stopped answering: {reason}; fix that and run this again."
        ) from error
