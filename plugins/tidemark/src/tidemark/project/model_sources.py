"""Which sources dbt's models stand on, from dbt's manifest and its sources' schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tidemark.project import sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tidemark.project.directory import Project

# with two sources, one or both: there is nothing to look up
_MANY = 3


def together(project: Project) -> list[list[str]]:
    """Return the names of sources on which some model or test stands together, each set once.

    The manifest is that of dbt's latest run. A model that is newer than it belongs to all sources until it is known.
    """
    in_use = sources.active(project)
    if len(in_use) < _MANY:
        return []
    try:
        manifest = json.loads((project.dbt_target / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    names = {source.raw_schema: source.name for source in in_use}
    found = {frozenset(names[schema] for schema in each if schema in names) for each in _schemas(manifest).values()}
    # one source and all sources are always there
    return sorted(sorted(each) for each in found if 1 < len(each) < len(in_use))


def _schemas(manifest: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Return the schemas of the sources below each node."""
    parents: Mapping[str, Iterable[str]] = manifest["parent_map"]
    found: dict[str, frozenset[str]] = {
        node: frozenset({source["schema"]}) for node, source in manifest["sources"].items()
    }
    for start in parents:
        # without recursion: a chain of models may be long
        waiting = [start]
        while waiting:
            node = waiting[-1]
            if node not in found and (unknown := [each for each in parents.get(node, ()) if each not in found]):
                waiting += unknown
                continue
            if node not in found:
                found[node] = frozenset().union(*(found[each] for each in parents.get(node, ())))
            waiting.pop()
    return found
