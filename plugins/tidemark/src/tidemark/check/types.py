"""How a column's type lands in the warehouse. Pure; it has the tap's own rules, which live in another environment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# input of these looks the object up, and fails where it is missing
_BY_NAME = frozenset(
    {
        *("regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator"),
        *("regproc", "regprocedure", "regrole", "regtype", "aclitem"),
    }
)
# have no input: COPY could write and nothing could read them
_UNREADABLE = frozenset(
    {
        *("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "pg_brin_bloom_summary"),
        *("pg_brin_minmax_multi_summary", "gtsvector", "pg_ddl_command"),
    }
)
_KINDS = {"e": "enum", "c": "composite", "r": "range of your own", "m": "multirange of your own"}


@dataclass(frozen=True)
class Type:
    """A row of pg_type, as far as it matters here.

    Attributes:
        kind: typtype: b(ase), c(omposite), d(omain), e(num), m(ultirange), p(seudo), r(ange).
        element: of an array, the oid of its elements' type; else 0.
        base: of a domain, the oid of the type below it; else 0.
        base_declared: of a domain, the type below it with modifiers.
        extension: the one that brought it; None if none did.
    """

    oid: int
    name: str
    built_in: bool
    kind: str
    element: int
    base: int
    base_declared: str
    extension: str | None


class Way(Enum):
    """How a column's values travel."""

    as_it_is = auto()
    changed = auto()
    """As another type, which the note tells."""
    if_known = auto()
    """As it is where the warehouse has the type, as text elsewhere."""
    refused = auto()


@dataclass(frozen=True)
class Landing:
    """The warehouse's type for a column.

    Attributes:
        type: its name, as far as it matters for `way`.
        why: what the source's type is, for people.
        extension: that has it.
    """

    way: Way
    type: str
    why: str = ""
    extension: str | None = None


def landing(oid: int, declared: str, types: Mapping[int, Type]) -> Landing:
    """Return how a column of type `oid`, `declared` with its modifiers, lands."""
    found = types[oid]
    if found.element or found.base:
        return _made_of(found, declared, types)
    if found.kind == "p" or found.name in _UNREADABLE:
        return Landing(Way.refused, declared, declared)
    if found.kind in "ec" or (found.kind in "rm" and not found.built_in):
        return Landing(Way.changed, "text", f"{_KINDS[found.kind]} {found.name}")
    if found.name in _BY_NAME:
        return Landing(Way.changed, "text", found.name)
    if found.built_in:
        return Landing(Way.as_it_is, declared)
    return Landing(Way.if_known, found.name, found.name, found.extension)


def _made_of(found: Type, declared: str, types: Mapping[int, Type]) -> Landing:
    """Return how an array or a domain lands, which is its elements' or base type's way."""
    if found.element:
        element = landing(found.element, types[found.element].name, types)
        if element.way is Way.as_it_is:
            return Landing(Way.as_it_is, declared)
        return Landing(element.way, f"{element.type}[]", f"array of {element.why}", element.extension)
    below = landing(found.base, found.base_declared, types)
    way = Way.changed if below.way is Way.as_it_is else below.way
    return Landing(way, below.type, f"domain {found.name}", below.extension)
