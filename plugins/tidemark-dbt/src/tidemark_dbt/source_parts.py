"""Limits a run of dbt to what stands on some of the project's sources, as TIDEMARK_DBT_SOURCES asks for.

A node stands on a source if it, or what it depends on, reads a table in the source's raw schema. dbt's own selectors
name dbt's sources, whose names are the user's; schemas are what both sides know.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeVar

from dbt.graph.selector import NodeSelector

from singer_postgres.core import run_events

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

_T = TypeVar("_T")
VARIABLE = "TIDEMARK_DBT_SOURCES"
_BUILT = frozenset({"model", "snapshot", "seed"})
_NAMES_A_LINE = 30
_filter_selection = NodeSelector.filter_selection


@dataclass(frozen=True)
class Asked:
    """What is asked for. Sources are named by their raw schemas.

    Attributes:
        without: leave out what stands on any of these: they were not loaded.
        part: take only what stands on these, or on some of them, and is in no smaller part; None for everything.
        parts: all parts.
    """

    without: frozenset[str] = frozenset()
    part: frozenset[str] | None = None
    parts: frozenset[frozenset[str]] = frozenset()

    @classmethod
    def parse(cls, text: str | None) -> Asked:
        """Parse the variable's value.

        >>> Asked.parse('{"without": ["raw_crm"]}').wants({"raw"})
        True
        """
        fields = json.loads(text or "{}")
        part = fields.get("part")
        return cls(
            frozenset(fields.get("without") or ()),
            None if part is None else frozenset(part),
            frozenset(map(frozenset, fields.get("parts") or ())),
        )

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.part is None and not self.without

    @property
    def is_last(self) -> bool:
        """Whether it is the part that follows all others."""
        return self.part is not None and self.part == frozenset().union(*self.parts)

    def wants(self, schemas: Collection[str]) -> bool:
        """Return whether to take a node that stands on these schemas.

        Only schemas of parts count. What stands on none of them belongs to every smallest part: whichever is built
        first needs it.
        """
        if not self.without.isdisjoint(schemas):
            return False
        if self.part is None:
            return True
        counted = frozenset().union(*self.parts).intersection(schemas)
        return counted <= self.part and not any(counted <= each for each in self.parts if each < self.part)


def follow() -> Asked:
    """Have dbt select only what TIDEMARK_DBT_SOURCES asks for, and report what that leaves out."""
    asked = Asked.parse(os.environ.get(VARIABLE))
    if not asked.everything:
        NodeSelector.filter_selection = _limited(asked)
    return asked


def _limited(asked: Asked) -> Callable[[NodeSelector, set[str]], set[str]]:
    told: set[str] = set()

    def filter_selection(selector: NodeSelector, selected: set[str]) -> set[str]:
        schemas = {node: source.schema for node, source in selector.manifest.sources.items()}
        stands_on = below(parents_in(selector), schemas)
        found: set[str] = _filter_selection(selector, selected)
        kept = {node for node in found if asked.wants(stands_on[node])}
        nodes = selector.manifest.nodes
        # dbt selects twice for a build
        if not told:
            told.add("part")
            tell("part", (nodes[node] for node in nodes if asked.wants(stands_on.get(node, ()))))
        if left := sorted({node for node in found - kept if node in nodes} - told) if asked.without else ():
            told.update(left)
            tell("left_out", (nodes[node] for node in left))
        return kept

    return filter_selection


def is_built(node: Any) -> bool:
    """Whether a node is a model, snapshot or seed."""
    return str(node.resource_type) in _BUILT


def tell(what: str, nodes: Iterable[Any]) -> None:
    """Report the names of models, snapshots and seeds to the runner, in lines of less than a page."""
    names = sorted(node.name for node in nodes if is_built(node))
    # none at all is a line, too
    for start in range(0, max(1, len(names)), _NAMES_A_LINE):
        run_events.emit(**{what: names[start : start + _NAMES_A_LINE]})


def parents_in(selector: NodeSelector) -> dict[str, list[str]]:
    """Return what each node of the project reads."""
    # edges lead from what is read to what reads it
    graph = selector.full_graph.graph
    return {node: list(graph.predecessors(node)) for node in graph}


def below(parents: Mapping[str, Collection[str]], sources: Mapping[str, _T]) -> dict[str, frozenset[_T]]:
    """Return what each node stands on.

    Args:
        parents: what each node reads.
        sources: a value for each of dbt's sources, by its id.
    """
    found: dict[str, frozenset[_T]] = {}
    for node in TopologicalSorter(parents).static_order():
        own = {sources[node]} if node in sources else ()
        found[node] = frozenset(own).union(*(found[parent] for parent in parents.get(node, ())))
    return found
