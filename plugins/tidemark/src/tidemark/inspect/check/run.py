"""The whole check: queries both databases and Meltano, and collects the findings."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core.errors import SettingInvalidError, SingerPostgresError, one_line
from singer_postgres.core.source import sequences, start_date, stream_query, table_limits
from tidemark.errors import UnreachableError, UsageError
from tidemark.inspect import foreign_keys
from tidemark.inspect.check import (
    freshness,
    large_tables,
    log_based,
    relations,
    servers,
    settings,
    source,
    stream_settings,
    streams,
    warehouse,
    watching,
)
from tidemark.inspect.check.finding import Finding, Level
from tidemark.local.postgres.server import Server
from tidemark.project import database_settings, onboarded, resolved_settings, sources, yaml_files
from tidemark.project.connections import SNAPSHOT, UNREACHABLE, connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tidemark.inspect.check.relations import CheckedRelation
    from tidemark.inspect.check.streams import Stream
    from tidemark.inspect.foreign_keys import MaskedTable
    from tidemark.project.database_settings import DatabaseSettings, Source
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition


def check(project: Project, source: str | None = None) -> list[Finding]:
    """Return all findings, including what is in order. This starts no server and writes nothing.

    Args:
        source: the name of the only source to look at; None for all.

    Raises:
        UsageError: there is no such source.
        UnreachableError: a database doesn't answer, or stops answering.
        TidemarkError: Meltano's configuration can't be read.
    """
    files = yaml_files.read(project)
    found = [*settings.findings(project, files), *_definitions(project, source)]
    if any(finding.level is Level.error and finding.source for finding in found):
        # sources that are not well defined can't be looked at
        return found
    meant = sources.chosen(project, source)
    looked_at = [_look_at(project, each, alone=len(meant) == 1) for each in meant]
    found += [finding for seen in looked_at for finding in seen.findings]
    found += _masked_apart(looked_at)
    return [*found, *_warehouse(project, looked_at)]


def _definitions(project: Project, source: str | None) -> Iterator[Finding]:
    """Yield the mistakes in the definitions of sources, or of one source."""
    _, faults = sources.read_with_faults(project)
    meant = [fault for fault in faults if source in {None, fault.source}]
    for fault in dict.fromkeys([*meant, *sources.stray_variables(project)]):
        yield Finding("source", Level.error, fault.what.rstrip("."), source=fault.source or None)


@dataclass
class _SourceSeen:
    """What the check found in a source.

    Attributes:
        server: None if it could not be asked.
        extensions: the extension of each type of the streams' columns.
        masked: the tables that are read with their masks, by schema and name.
        raw_partitions: how its target partitions new tables, by stream.
        masks: by stream and column.
    """

    definition: SourceDefinition
    findings: list[Finding]
    server: servers.ServerFacts | None = None
    streams: list[Stream] = field(default_factory=list)
    extensions: dict[str, str] = field(default_factory=dict)
    relations: list[CheckedRelation] = field(default_factory=list)
    masked: dict[tuple[str, str], MaskedTable] = field(default_factory=dict)
    raw_partitions: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def _look_at(project: Project, definition: SourceDefinition, *, alone: bool) -> _SourceSeen:
    """Look at a source.

    Args:
        alone: an unreachable source is an error of the whole check, because it is the only one.

    Raises:
        UnreachableError: see `alone`.
    """
    seen = _SourceSeen(definition, [])
    try:
        side = database_settings.source(project, definition)
        if missing := _not_running(project, side):
            seen.findings.append(missing)
        else:
            _query(project, side, seen)
    except (UnreachableError, UsageError) as error:
        if alone:
            raise
        seen.findings.append(Finding("source", Level.error, str(error).rstrip(".")))
    seen.findings = [replace(finding, source=definition.name) for finding in seen.findings]
    return seen


def _query(project: Project, side: Source, seen: _SourceSeen) -> None:
    configuration = streams.configuration(project, seen.definition)
    seen.raw_partitions, seen.masks = configuration.raw_partitions, configuration.masks
    with _session(side) as connection:
        seen.server = servers.read(side, connection)
        seen.findings += servers.findings("source", seen.server)
        with connection.transaction():
            connection.execute(SNAPSHOT)
            seen.relations, left_out = relations.read(connection, configuration.schemas)
            seen.streams, about_source = _source(side, connection, configuration, seen.relations, left_out)
            types = {relations.extension_type(each) for stream in seen.streams for each in stream.columns}
            seen.extensions = relations.extensions(connection, types)
            seen.masked = _masked(connection, configuration, seen.streams)
        seen.findings += about_source
        seen.findings += _tables_not_read(project, seen, configuration)


def _tables_not_read(project: Project, seen: _SourceSeen, configuration: streams.Configuration) -> Iterator[Finding]:
    """Yield a note on tables that nobody selected, or that came after the source was onboarded."""
    definition = seen.definition
    # the tables of its pairs are in the file of the source
    decided = onboarded.decided_streams(project, definition.pair_of or definition.name)
    if decided is None:
        found = {
            name: each
            for name, each in streams.discovered(configuration, seen.relations).items()
            if name not in definition.retired_streams
        }
        yield from streams.not_selected(configuration, found, seen.streams)
        return
    tables = [each for each in seen.relations if each.kind in "rp" and not each.is_partition]
    decided |= definition.retired_streams
    if new := sorted(each.stream for each in tables if each.stream not in decided):
        name = definition.pair_of or definition.name
        count = f"{len(new)} new table{'s' * (len(new) > 1)}"
        yield Finding("source", Level.note, f"{count}: {', '.join(new)}; `tidemark onboard {name}` brings it on board")


def _masked(
    connection: psycopg.Connection[Any], configuration: streams.Configuration, selected: Iterable[Stream]
) -> dict[tuple[str, str], MaskedTable]:
    by_oid = {stream.relation.oid: stream for stream in selected}
    keys = foreign_keys.read(connection, by_oid.keys())
    return {
        stream.relation.path: foreign_keys.MaskedTable(
            stream.name,
            # the tap reads the key's columns even if they are not selected
            {*(column.name for column in stream.columns), *stream.row_key},
            configuration.masks.get(stream.name) or {},
            keys.get(oid, ()),
        )
        for oid, stream in by_oid.items()
    }


def _masked_apart(looked_at: Iterable[_SourceSeen]) -> Iterator[Finding]:
    """Yield a warning for each foreign key that is masked on one side, also between a source and its pairs."""
    by_database: dict[str, list[_SourceSeen]] = {}
    for seen in looked_at:
        by_database.setdefault(seen.definition.pair_of or seen.definition.name, []).append(seen)
    for name, group in by_database.items():
        tables = {path: table for seen in group for path, table in seen.masked.items()}
        for stream, what in foreign_keys.masked_apart(tables, group[0].definition.path):
            yield Finding("source", Level.warning, what, stream=stream, source=name)


def _not_running(project: Project, side: DatabaseSettings) -> Finding | None:
    """Return the finding about an embedded server that does not run; None if there is nothing to say."""
    if not side.embedded or Server(side, project).running():
        return None
    what = "its embedded server is not running, so it was not looked at: start it with `tidemark up`, then check again"
    return Finding("source" if side.side == "source" else "warehouse", Level.warning, what)


def _warehouse(project: Project, looked_at: list[_SourceSeen]) -> list[Finding]:
    """Return all findings about the warehouse, and about its clock beside the sources'."""
    side = database_settings.warehouse(project)
    if missing := _not_running(project, side):
        return [missing]
    found: list[Finding] = []
    with _session(side) as connection:
        server = servers.read(side, connection)
        found += servers.findings("warehouse", server)
        found += servers.unseen(resolved_settings.beyond_variables(project, sources.TARGET, type(side).model_fields))
        with connection.transaction():
            connection.execute(SNAPSHOT)
            for seen in looked_at:
                schema = seen.definition.raw_schema
                about = [*warehouse.read(connection, schema, seen.streams, seen.extensions)]
                about += large_tables.read(connection, schema, seen.streams, seen.raw_partitions, seen.masks)
                found += [replace(each, source=seen.definition.name) if each.stream else each for each in about]
    found += [finding for seen in looked_at if seen.server for finding in servers.clocks(seen.server, server)]
    loaded = [(seen.definition.raw_schema, stream.relation.name) for seen in looked_at for stream in seen.streams]
    found += freshness.findings(project.dbt_target / "manifest.json", loaded)
    # what concerns the whole warehouse was found with each source
    return list(dict.fromkeys(found))


def _source(
    side: Source,
    connection: psycopg.Connection[Any],
    configuration: streams.Configuration,
    all_relations: list[CheckedRelation],
    left_out: Iterable[object],
) -> tuple[list[Stream], list[Finding]]:
    """Return the selected streams, and the findings about them and about the role that reads them."""
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
        found += stream_settings.findings(configuration, all_relations, selected)
    of_log = list(log_based.findings(connection, configuration, selected))
    found += of_log
    unfit = {finding.stream for finding in of_log}
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
        if not about and stream.name not in unfit:
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
    if masks:
        try:
            stream_query.stream_query(relation, names, key=stream.key or details.key, masks=masks, where=())
        except SettingInvalidError as error:
            found.append(str(error).removeprefix(f"{relation} "))
        except SingerPostgresError:
            # another finding says so
            pass
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
