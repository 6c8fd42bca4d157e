"""Finds the source of each stream that a user names: `public-orders`, or `crm/public-orders` where several have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.project import meltano_project, selection, sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition


def by_source(project: Project, names: Sequence[str], source: str | None) -> dict[SourceDefinition, list[str]]:
    """Return the named streams of each source; without names, no stream of each source that is meant.

    Args:
        source: the only source that is meant; None for all.

    Raises:
        UsageError: there is no such source, or a stream is in no source or in several.
    """
    meant = sources.chosen(project, source)
    if not names:
        return {each: [] for each in meant}
    found: dict[SourceDefinition, list[str]] = {}
    of_name = {each.name: each for each in meant}
    for name in names:
        start, slash, rest = name.partition("/")
        if slash and start in of_name:
            found.setdefault(of_name[start], []).append(rest)
        elif len(meant) == 1:
            found.setdefault(meant[0], []).append(name)
        else:
            found.setdefault(_only(project, meant, name), []).append(name)
    return found


def _only(project: Project, among: Sequence[SourceDefinition], stream: str) -> SourceDefinition:
    """Return the only source that selects a stream.

    Raises:
        UsageError: none does, or several do.
    """
    meltano = meltano_project.find(project)
    having = [source for source in among if selection.selects(meltano, source.tap)(stream)]
    if not having:
        known = ", ".join(source.name for source in among)
        raise UsageError(f"No source selects {stream}; the sources are {known}: see `select` in their files.")
    if len(having) > 1:
        both = " and ".join(source.name for source in having)
        write = " or ".join(source.shown(stream) for source in having)
        raise UsageError(f"{stream} is a stream of {both}: write {write}, or add --source NAME.")
    return having[0]
