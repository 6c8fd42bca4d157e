"""Leaves out tables that a file lacks which a person edited, because onboarding does not write that file again.

Otherwise a table would get a model without a stream that loads it, or a model that reads what dbt does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import yaml

from singer_postgres.core.errors import one_line
from singer_postgres.core.source.selected_streams import Pattern
from tidemark.errors import UsageError
from tidemark.onboard import meltano_files
from tidemark.onboard.generated import sources_path
from tidemark.onboard.proposal import Method
from tidemark.onboard.staged_columns import dbt_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tidemark.onboard.manifest import Manifest
    from tidemark.onboard.meltano_files import MeltanoSource
    from tidemark.onboard.proposal import Proposal, TableProposal
    from tidemark.project.directory import Project


@dataclass(frozen=True)
class _Edited:
    """What files have that a person edited; None for a file that onboarding still writes.

    Attributes:
        selected: the patterns of each tap.
        targets: the targets.
        described: the tables of dbt's sources, by name and identifier.
    """

    selected: Mapping[str, Sequence[Pattern]] | None
    targets: frozenset[str] | None
    described: frozenset[tuple[str, str]] | None


def without_missing(project: Project, proposal: Proposal, source: MeltanoSource, before: Manifest) -> Proposal:
    """Return the proposal without tables that a file lacks which a person edited.

    Raises:
        UsageError: such a file can't be read.
    """
    sources = sources_path(proposal.source)
    taps, targets, described = (
        _edited(project, path, before) for path in (source.tap_path, source.target_path, sources)
    )
    edited = _Edited(
        None if taps is None else {name: _patterns(tap) for name, tap in _plugins(taps, "extractors").items()},
        None if targets is None else frozenset(_plugins(targets, "loaders")),
        None if described is None else frozenset(_tables(described)),
    )

    def checked(each: TableProposal) -> TableProposal:
        missing = None if each.method is Method.left_out else _missing(each, proposal, source, edited)
        return replace(each, method=Method.left_out, reason=missing, by_edited_file=True) if missing else each

    return replace(proposal, tables=tuple(map(checked, proposal.tables)))


def _missing(each: TableProposal, proposal: Proposal, source: MeltanoSource, edited: _Edited) -> str | None:
    """Return what an edited file lacks for a table, with what to add to it; None if nothing is missing."""
    tap = f"tap-{each.pair}" if each.pair else source.tap
    if edited.selected is not None and not _is_selected(each.table.stream, edited.selected.get(tap, ())):
        entry = f"{meltano_files.stream_pattern(each.table.stream)}.*"
        return _advice(source.tap_path, f"its {tap} does not select it", f"- {entry}")
    target = source.target_of(each.pair)
    if edited.targets is not None and target not in edited.targets:
        return _advice(source.target_path, f"it has no {target}", f"- name: {target}")
    name = dbt_source(each.raw_schema or proposal.raw_schema)
    if edited.described is not None and (name, each.raw_name) not in edited.described:
        return _advice(sources_path(proposal.source), f"its source {name} does not have it", f"- name: {each.raw_name}")
    return None


def _advice(path: str, what: str, entry: str) -> str:
    return f"somebody edited {path}, and {what}: add `{entry}` there, then run this again"


def _edited(project: Project, path: str, before: Manifest) -> dict[str, Any] | None:
    """Return the content of a file that a person edited; None if it is as onboarding wrote it, or not there yet."""
    file = project.root / path
    if path not in before.files or not file.exists():
        return None
    text = file.read_text(encoding="utf-8")
    if before.wrote(path, text):
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}; correct it.") from None
    return found if isinstance(found, dict) else {}


def _plugins(document: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    found = (document.get("plugins") or {}).get(kind) or ()
    return {str(each["name"]): each for each in found if isinstance(each, dict) and each.get("name")}


def _patterns(tap: dict[str, Any]) -> list[Pattern]:
    return [Pattern.parse(str(each)) for each in tap.get("select") or ()]


def _is_selected(stream: str, patterns: Sequence[Pattern]) -> bool:
    hits = [each for each in patterns if fnmatchcase(stream, each.streams)]
    return any(not each.negated for each in hits) and not any(each.negated and each.columns == "*" for each in hits)


def _tables(document: dict[str, Any]) -> set[tuple[str, str]]:
    found = set()
    for source in document.get("sources") or ():
        for table in source.get("tables") or ():
            found |= {(str(source.get("name")), str(table[key])) for key in ("name", "identifier") if key in table}
    return found
