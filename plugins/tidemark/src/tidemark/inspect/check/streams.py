"""Finds the selected streams with their columns, method and replication key, by Meltano's own rules."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from singer_postgres.core.source import log_tables
from singer_postgres.core.source.relations import KINDS
from singer_postgres.core.source.slot_wal import SlotBudget
from tidemark.errors import UsageError
from tidemark.inspect.check.finding import Finding, Level
from tidemark.project import meltano_project, plugin_values, resolved_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from singer_postgres.core.source.relations import Column
    from tidemark.inspect.check.relations import CheckedRelation
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

_EXTRAS = ("_select", "_select_filter", "_metadata", "_catalog")
_METHODS = ("FULL_TABLE", "INCREMENTAL", "LOG_BASED")
_HISTORY_DAYS = 90
_NAMED = 6


# settings of the tap under which it sends rows as records
_NEEDS_RECORDS = ("flattening_enabled", "stream_maps", "max_record_count")


@dataclass(frozen=True)
class Configuration:
    """The tap's settings that decide what it reads, and the target's that decide what it does with the rows.

    Attributes:
        schemas: the schemas to discover; empty for all.
        allow_duplicates: streams that may be INCREMENTAL without a key.
        masks: masks by stream and column.
        mask_secret: the key of sha256 masks.
        where: conditions on the rows, by stream.
        start_date: INCREMENTAL streams are not read before this date.
        lookback_seconds: how far before its bookmark a stream is read.
        timestamp_timezone: the time zone of replication keys without one.
        catalog: a catalog file, which replaces discovery and the rules.
        history_days: how long the history is kept; 0 for no history.
        hard_delete: the target deletes rows that a FULL_TABLE stream no longer has.
        raw_partitions: how the target partitions new tables, by stream.
        first_load_part: the parts of first loads that runs are to read, by stream.
        sends_records: the tap sends the rows as records, not in chunks.
        chunks_outstanding: how many chunk files may exist at once; None if nobody set it.
        readers, loaders: max_parallel of the tap and of the target.
        path: the file with all this but what is the target's, for messages.
        prefix: what the variables of the tap begin with.
    """

    select: tuple[str, ...]
    select_filter: tuple[str, ...]
    metadata: Mapping[str, Any]
    schemas: frozenset[str]
    allow_duplicates: frozenset[str]
    masks: Mapping[str, Mapping[str, str]]
    mask_secret: str | None = None
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    start_date: str | None = None
    lookback_seconds: float = 60
    timestamp_timezone: str | None = None
    catalog: str | None = None
    history_days: float = _HISTORY_DAYS
    hard_delete: bool = False
    path: str = "extract/extractors.meltano.yml"
    prefix: str = "TAP_POSTGRES"
    slot: str = "tidemark_tap_postgres"
    publication: str = "tidemark_tap_postgres"
    slot_budget: SlotBudget = field(default_factory=SlotBudget)
    commit_columns: frozenset[str] = frozenset()
    change_history: frozenset[str] = frozenset()
    raw_partitions: Mapping[str, Any] = field(default_factory=dict)
    first_load_part: Mapping[str, Any] = field(default_factory=dict)
    sends_records: bool = False
    chunks_outstanding: int | None = None
    readers: int = 2
    loaders: int = 2


@dataclass(frozen=True)
class Stream:
    """A selected stream.

    Attributes:
        method: the configured replication method; None if there is none.
        key: the configured key; None for the table's own.
        columns: the selected columns.
    """

    relation: CheckedRelation
    method: str | None
    replication_key: str | None
    key: tuple[str, ...] | None
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        """SCHEMA-TABLE."""
        return self.relation.stream

    @property
    def row_key(self) -> tuple[str, ...]:
        """The configured key, or the table's own; empty if it has no key."""
        return self.key or (self.relation.described.key if self.relation.described else ())

    @property
    def incremental(self) -> bool:
        """Whether the stream is read from a bookmark on."""
        return self.method == "INCREMENTAL"


def configuration(project: Project, source: SourceDefinition) -> Configuration:
    """Ask Meltano for the settings of a source's tap and target.

    Raises:
        UsageError: a value has a wrong form, or Meltano's files can't be read.
    """
    from meltano.core.error import MeltanoError  # noqa: PLC0415

    meltano = meltano_project.find(project)
    _, service = meltano_project.plugin(meltano, source.tap)
    try:
        with resolved_settings.stored(project, meltano) as session:
            values = plugin_values.read(meltano, source.tap, session)
            values |= {name: service.get(name, session=session) for name in _EXTRAS}
            target = plugin_values.read(meltano, source.target, session)
    except (MeltanoError, ValueError) as error:
        raise meltano_project.unreadable(error) from error
    slot = values.get("slot_name") or log_tables.name_of(source.tap)
    return Configuration(
        select=tuple(values["_select"]),
        select_filter=tuple(values["_select_filter"]),
        metadata=values["_metadata"],
        schemas=frozenset(values.get("filter_schemas") or ()),
        allow_duplicates=frozenset(values.get("allow_duplicates") or ()),
        masks=values.get("masks") or {},
        mask_secret=values.get("mask_secret"),
        where=_where(values),
        start_date=values.get("start_date"),
        lookback_seconds=float(values.get("lookback_seconds") or 60),
        timestamp_timezone=values.get("timestamp_timezone"),
        catalog=values["_catalog"],
        history_days=_number(target.get("history_days")),
        hard_delete=bool(target.get("hard_delete")),
        path=source.path,
        prefix=source.prefix,
        slot=slot,
        publication=values.get("publication_name") or slot,
        slot_budget=SlotBudget.of(values),
        commit_columns=frozenset(values.get("commit_columns") or ()),
        change_history=frozenset(values.get("change_history") or ()),
        raw_partitions=target.get("raw_partitions") or {},
        first_load_part=values.get("first_load_part") or {},
        # as in the tap's `why_records`
        sends_records=not values.get("use_copy") or any(map(values.get, _NEEDS_RECORDS)),
        chunks_outstanding=values.get("chunks_outstanding"),
        readers=values.get("max_parallel") or 2,
        loaders=target.get("max_parallel") or 2,
    )


def _number(history_days: Any) -> float:
    """Return how long the target keeps its history. A value that isn't a number counts as the default."""
    try:
        return float(history_days)
    except (TypeError, ValueError):
        return _HISTORY_DAYS


def _where(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return each stream's conditions as the tap uses them, from `where` and the MeltanoLabs tap's `stream_options`."""
    where: dict[str, list[str]] = {}
    for stream, options in (values.get("stream_options") or {}).items():
        where.setdefault(stream, []).extend(options.get("custom_where_clauses", ()))
    for stream, condition in (values.get("where") or {}).items():
        where.setdefault(stream, []).append(condition)
    return where


def follows_log(configuration: Configuration) -> bool:
    """Return whether `metadata` makes any stream LOG_BASED."""
    return '"LOG_BASED"' in json.dumps(dict(configuration.metadata), default=str)


def discovered(configuration: Configuration, relations: Iterable[CheckedRelation]) -> dict[str, CheckedRelation]:
    """Return the relations that the tap discovers, by stream. Partitions belong to their table."""
    return {
        relation.stream: relation
        for relation in relations
        if not relation.is_partition and (not configuration.schemas or relation.schema in configuration.schemas)
    }


def selected(configuration: Configuration, found: Mapping[str, CheckedRelation]) -> list[Stream]:
    """Return the selected streams of `found`.

    Raises:
        UsageError: `metadata` doesn't have the form that Meltano needs.
    """
    from meltano.core.plugin.singer.catalog import (  # noqa: PLC0415
        ListSelectedExecutor,
        MetadataExecutor,
        select_filter_metadata_rules,
        select_metadata_rules,
    )
    from meltano.core.plugin.singer.tap import config_metadata_rules  # noqa: PLC0415

    # a catalog as from the tap's discovery, and then the rules that Meltano applies before a run
    catalog = {"streams": [_entry(relation) for relation in found.values()]}
    try:
        of_metadata = config_metadata_rules(dict(configuration.metadata))
    except ValueError as error:
        raise UsageError(
            f"`metadata` is {dict(configuration.metadata)!r}; write it in {configuration.path} as "
            "{STREAM: {replication-method: …, replication-key: …}}."
        ) from error
    rules = [
        *select_metadata_rules(["!*.*"]),
        *select_metadata_rules(configuration.select),
        *of_metadata,
        *select_filter_metadata_rules(configuration.select_filter),
    ]
    rules_of = _by_stream(rules)
    streams = []
    for entry in catalog["streams"]:
        MetadataExecutor(rules_of(entry["tap_stream_id"])).visit({"streams": [entry]})
        relation = found[entry["tap_stream_id"]]
        root, *properties = entry["metadata"]
        if not ListSelectedExecutor.node_selection(root):
            continue
        wanted = {node["breadcrumb"][1] for node in properties if ListSelectedExecutor.node_selection(node)}
        own = root["metadata"]
        key = own.get("table-key-properties")
        streams.append(
            Stream(
                relation,
                method=own.get("replication-method"),
                replication_key=own.get("replication-key"),
                key=tuple(key) if key else None,
                columns=tuple(column for name, column in relation.columns.items() if name in wanted),
            )
        )
    return streams


def _by_stream(rules: Sequence[Any]) -> Callable[[str], list[Any]]:
    """Return a function that finds the rules of a stream, in their order.

    Meltano compares each rule with each column of each stream, which takes a minute for 1,000 tables with a rule each.
    """
    named: dict[str, list[tuple[int, Any]]] = {}
    patterns = []
    for place, rule in enumerate(rules):
        name = rule.tap_stream_id
        if rule.negated or not isinstance(name, str) or _is_glob(name):
            patterns.append((place, rule))
        else:
            named.setdefault(name, []).append((place, rule))

    def of(stream: str) -> list[Any]:
        found = [*named.get(stream, ()), *(each for each in patterns if each[1].match(stream))]
        return [rule for _, rule in sorted(found, key=lambda each: each[0])]

    return of


def _entry(relation: CheckedRelation) -> dict[str, Any]:
    properties = [{"breadcrumb": ["properties", name], "metadata": {}} for name in relation.columns]
    return {"tap_stream_id": relation.stream, "metadata": [{"breadcrumb": [], "metadata": {}}, *properties]}


def unmatched(
    configuration: Configuration,
    relations: Iterable[CheckedRelation],
    found: Mapping[str, CheckedRelation],
    streams: list[Stream],
) -> list[Finding]:
    """Return findings about names in the configuration that the source doesn't have."""
    from meltano.core.plugin.singer.catalog import SelectPattern  # noqa: PLC0415

    if configuration.catalog:
        what = (
            f"catalog is set to {configuration.catalog}, so Meltano ignores `select` and `metadata`; this check still "
            "uses them, so its findings may not apply"
        )
        return [Finding("source", Level.warning, what)]
    elsewhere = {relation.stream: relation for relation in relations}
    findings = {}
    for pattern in map(SelectPattern.parse, configuration.select):
        name, column = pattern.stream_pattern, pattern.property_pattern
        matching = [relation for stream, relation in found.items() if fnmatch(stream, name)]
        if pattern.negated:
            continue
        if not matching:
            level = Level.warning if _is_glob(name) else Level.error
            what = f"selected, and {_why_missing(name, elsewhere.get(name), configuration)}"
            findings[name] = Finding("source", level, what, stream=name)
        elif column and not any(fnmatch(each, column) for relation in matching for each in relation.columns):
            what = f"`{pattern.raw}` selects no column; correct it in {configuration.path}"
            findings[pattern.raw] = Finding("source", Level.warning, what, stream=name)
    for name in configuration.metadata:
        # a flattened variable has further names after a dot
        if name not in findings and not any(fnmatch(stream, name.partition(".")[0]) for stream in found):
            what = f"has `metadata`, and there is no such stream; correct its name in {configuration.path}"
            findings[name] = Finding("source", Level.warning, what, stream=name)
    if not streams and not any(finding.level is Level.error for finding in findings.values()):
        what = f"no stream is selected; see `select` and filter_schemas in {configuration.path}"
        findings[""] = Finding("source", Level.error, what)
    return list(findings.values())


def not_selected(
    configuration: Configuration, found: Mapping[str, CheckedRelation], selected: Iterable[Stream]
) -> Iterator[Finding]:
    """Yield a note on tables that nothing reads, and that `select` does not leave out."""
    read = {stream.name for stream in selected}
    excluded = [each[1:].rpartition(".")[0] for each in configuration.select if each[:1] == "!" and each[-2:] == ".*"]
    # without any stream, another finding says so
    tables = [name for name, each in found.items() if each.kind in "rp"] if read else []
    if left := sorted(
        name for name in tables if name not in read and not any(fnmatch(name, pattern) for pattern in excluded)
    ):
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        count = f"{len(left)} table{'s are' if len(left) > 1 else ' is'} not selected"
        yield Finding("source", Level.note, f"{count}: {', '.join(left[:_NAMED])}{more}")


def _is_glob(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")


def _why_missing(name: str, relation: CheckedRelation | None, configuration: Configuration) -> str:
    if relation is None:
        if _is_glob(name):
            return f"it matches no stream; correct `select` in {configuration.path}"
        return f"there is no such table (SCHEMA-TABLE); make it, or correct `select` in {configuration.path}"
    if relation.is_partition:
        return f"it is a partition ({KINDS[relation.kind]}), which is read as part of its table: select that"
    schemas = ", ".join(sorted(configuration.schemas))
    return f"its schema {relation.schema} is not among filter_schemas ({schemas}); add it there"


def method_findings(stream: Stream) -> list[Finding]:
    """Return findings about a stream's replication method itself."""
    if stream.method is not None and stream.method not in _METHODS:
        what = f"replication-method {stream.method!r} is unknown; known are {', '.join(_METHODS)}"
        return [Finding("source", Level.error, what, stream=stream.name)]
    if stream.method is None and stream.replication_key:
        what = (
            f"has replication-key {stream.replication_key} and no replication-method, so it is read whole at every run"
        )
        return [Finding("source", Level.warning, f"{what}; add replication-method: INCREMENTAL", stream=stream.name)]
    if stream.incremental and not stream.replication_key:
        what = "is INCREMENTAL and has no replication-key; add one to its `metadata`"
        return [Finding("source", Level.error, what, stream=stream.name)]
    return []
