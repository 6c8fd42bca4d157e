"""Puts together all files of a source: tap and target, dbt's sources, staging models with tests, drafts of marts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tidemark.errors import UsageError
from tidemark.onboard import dbt_sources, dbt_tests, marts, meltano_files, staging
from tidemark.onboard.dbt_tests import MAX_TESTS
from tidemark.onboard.manifest import KnownTable
from tidemark.onboard.meltano_files import MeltanoSource
from tidemark.onboard.staged_columns import StagedSource

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from tidemark.onboard.manifest import Manifest
    from tidemark.onboard.proposal import Proposal

MODELS = "transform/models"


@dataclass(frozen=True)
class Options:
    """What a person chooses of the files.

    Attributes:
        yaml_per: one YAML file for all staging models of the source, or one beside each.
        max_tests: how many data tests there may be.
        marts: whether a dimension and a fact are drafted, and whether they are built.
        meltano: how the tap and target are named; None for the usual names.
        unmatched: patterns of the tap's `select` that match no table and are taken out.
    """

    yaml_per: Literal["folder", "table"] = "folder"
    max_tests: int = MAX_TESTS
    marts: Literal["none", "draft", "enabled"] = "draft"
    meltano: MeltanoSource | None = None
    unmatched: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generated:
    """The files of a source.

    Attributes:
        files: each file's text, by its path in the project. They are written in this order.
        streams: the stream that a file belongs to, for those that belong to one.
        notes: what was left out, in words.
        extended: files of a person, whose text here is theirs with what they lack.
        may_change: files that somebody else made, and that are changed all the same.
    """

    files: Mapping[str, str]
    streams: Mapping[str, str]
    tables: Mapping[str, KnownTable]
    star: tuple[str, str] | None
    notes: tuple[str, ...] = field(default=())
    extended: frozenset[str] = frozenset()
    may_change: frozenset[str] = frozenset()


def staging_path(source: str, model: str) -> str:
    """Return the path of a staging model."""
    return f"{MODELS}/staging/{source}/{model}.sql"


def sources_path(source: str) -> str:
    """Return the path of the file that describes a source's tables for dbt."""
    return f"{MODELS}/staging/{source}/_sources.yml"


def generate(
    proposal: Proposal,
    options: Options,
    before: Manifest,
    *,
    kept: Iterable[str] = (),
    described: Collection[str] = (),
) -> Generated:
    """Return a source's files.

    Args:
        before: what was written last; its names stay.
        kept: streams that are no longer read and whose staging models are still there.
        described: raw schemas whose record of runs another file describes.

    Raises:
        UsageError: two tables have the same name in the warehouse.
    """
    _refuse_equal_names(proposal)
    meltano = options.meltano or MeltanoSource.of(proposal.source)
    old = {stream: before.tables[stream] for stream in kept}
    source = StagedSource.of(
        proposal,
        aliases={
            stream: {name: column["alias"] for name, column in table.columns.items()}
            for stream, table in before.tables.items()
        },
        source_names=_source_names(before),
        taken=[table.source_name for table in old.values()],
    )
    tests = dbt_tests.choose(source, most=options.max_tests)
    folder = f"{MODELS}/staging/{proposal.source}"
    gone = [(table.raw_schema, table.source_name, table.raw_name) for table in old.values()]
    targets = {proposal.raw_schema: meltano.target}
    targets |= {schema: meltano.target_of(pair) for pair, schema in proposal.pairs.items()}
    targets |= {each.raw_schema: meltano.target_of(each.pair) for each in old.values()}
    files = {sources_path(proposal.source): dbt_sources.sources(source, targets, gone=gone, described=described)}
    streams = {}
    for table in source.tables.values():
        path = staging_path(proposal.source, table.model)
        files[path] = staging.model(table)
        streams[path] = table.proposal.table.stream
        if options.yaml_per == "table":
            path = path.removesuffix(".sql") + ".yml"
            files[path] = staging.properties([table], tests)
            streams[path] = table.proposal.table.stream
    if options.yaml_per == "folder" and (source.tables or old):
        files[f"{folder}/_models.yml"] = staging.properties(
            source.tables.values(), tests, gone=[table.model for table in old.values()]
        )
    star = None if options.marts == "none" else marts.find(source, before=before.star)
    if star:
        drafts = marts.files(star, enabled=options.marts == "enabled")
        files |= {f"{MODELS}/marts/{proposal.source}/{name}": text for name, text in drafts.items()}
    # the tap last: it reads a table only once everything else is there
    files |= dict(reversed(meltano_files.files(proposal, meltano).items()))
    known = {
        table.proposal.table.stream: KnownTable.of(table, before.tables.get(table.proposal.table.stream))
        for table in source.tables.values()
    }
    return Generated(files, streams, known, star.streams if star else None, tests.left_out)


def _source_names(before: Manifest) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for table in before.tables.values():
        found.setdefault(table.raw_schema, {})[table.raw_name] = table.source_name
    return found


def _refuse_equal_names(proposal: Proposal) -> None:
    for what, names in (
        (
            "table in the warehouse",
            [f"{each.raw_schema or proposal.raw_schema}.{each.raw_name}" for each in proposal.read],
        ),
        ("staging model", [each.model for each in proposal.read]),
    ):
        for name, count in Counter(names).items():
            if count > 1 or not name:
                raise UsageError(
                    f"{count} tables of {proposal.source} have the {what} {name!r}; leave out all but one, or read "
                    "their schemas as two sources."
                )
