"""Maps a column's type to its type in the warehouse. Pure: it knows PostgreSQL's rules, and no database.

Built-in types stay as they are. Types that only the source has (domains, enums, composites, the user's own ranges)
become a type that can parse their text. An extension's type stays, if the warehouse has the extension.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# their input functions look up an object by name, and fail if it doesn't exist
_BY_NAME = frozenset(
    {
        *("regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator"),
        *("regproc", "regprocedure", "regrole", "regtype", "aclitem"),
    }
)
# they have no input function: COPY could write their values, but nothing could read them
_UNREADABLE = frozenset(
    {
        *("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "gtsvector", "pg_ddl_command"),
        *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
    }
)
_KINDS = {"e": "enum", "c": "composite", "r": "range of your own", "m": "multirange of your own"}

# Their binary form is the same in all supported versions, and no setting changes its meaning. Interval is not among
# them: infinity, which exists from version 17 on, would become a number in an older server.
_SAME_IN_BINARY = frozenset(
    {
        *("boolean", "smallint", "integer", "bigint", "real", "double precision", "numeric", "bytea", "uuid"),
        *("text", "character varying", "character", "bpchar", "json", "jsonb"),
        *("date", "time without time zone", "time with time zone"),
        *("timestamp without time zone", "timestamp with time zone"),
    }
)


@dataclass(frozen=True)
class Type:
    """A row of pg_type, with the columns needed here."""

    oid: int
    name: str
    built_in: bool
    kind: str
    """typtype: b(ase), c(omposite), d(omain), e(num), m(ultirange), p(seudo), r(ange)."""
    element: int
    """For an array: the oid of its elements' type; else 0."""
    base: int
    """For a domain: the oid of its base type; else 0."""
    base_modifier: str
    """For a domain: its base type with modifiers, as format_type() gives it."""
    delimiter: str = ","
    """The delimiter between the elements of an array of this type."""


@dataclass(frozen=True)
class TargetType:
    """The warehouse's type for a column; None if its values can't be transferred.

    Attributes:
        extension: the type belongs to an extension.
        binary: the values can be transferred in binary form.
        instead_of: the source's type, for people, if the warehouse gets another; else empty.
    """

    type: str | None
    extension: bool = False
    binary: bool = False
    instead_of: str = ""


def target_type(oid: int, declared: str, types: Mapping[int, Type]) -> TargetType:
    """Return the warehouse's type for a column.

    Args:
        oid: the oid of the column's type.
        declared: its type with modifiers, as format_type() gives it under an empty search_path.
        types: pg_type rows by oid, including element and base types.
    """
    found = types[oid]
    if found.element:
        return _array(found, declared, types)
    if found.kind == "d":
        return replace(target_type(found.base, found.base_modifier, types), instead_of=f"domain {found.name}")
    if found.kind == "p" or found.name in _UNREADABLE:
        return TargetType(None)
    if _as_text(found):
        # the binary form of an enum is its label, which is also the binary form of that text
        kind = _KINDS.get(found.kind)
        return TargetType("text", binary=found.kind == "e", instead_of=f"{kind} {found.name}" if kind else found.name)
    if found.built_in:
        return TargetType(declared, binary=found.name in _SAME_IN_BINARY)
    return TargetType(_unqualified(declared), extension=True)


def _as_text(type_: Type) -> bool:
    return type_.kind in "ec" or (type_.kind in "rm" and not type_.built_in) or type_.name in _BY_NAME


def _array(array: Type, declared: str, types: Mapping[int, Type]) -> TargetType:
    element = types[array.element]
    target = target_type(array.element, element.name, types)
    if target.type is None:
        return target
    if target.extension and element.delimiter != ",":
        # if the warehouse lacks the type, it would parse the array of text with commas between the elements
        return TargetType("text", instead_of=f"array of {element.name}")
    if element.kind != "d" and not _as_text(element):
        # Unchanged elements keep the array's own modifiers: numeric(12,2)[]. Types such as int2vector, whose name
        # doesn't say that it is an array, refuse their own binary form if empty.
        return TargetType(_unqualified(declared), target.extension, target.binary and declared.endswith("[]"))
    if target.type.endswith("[]"):
        # an array of a domain over arrays: each element is the text of an array, not another dimension
        return TargetType("text[]", instead_of=f"array of {target.instead_of}")
    return TargetType(target.type + "[]", target.extension, instead_of=f"array of {target.instead_of}")


def _unqualified(declared: str) -> str:
    """Drop the schema of an extension's type, which may be in another schema in the warehouse."""
    return re.sub(r'^("([^"]|"")*"|[^".( ]+)\.', "", declared)


_JSON_TYPES: dict[str, dict[str, Any]] = {
    "smallint": {"type": ["integer"]},
    "integer": {"type": ["integer"]},
    "bigint": {"type": ["integer"]},
    "oid": {"type": ["integer"]},
    "real": {"type": ["number"]},
    "double precision": {"type": ["number"]},
    "numeric": {"type": ["number"]},
    "boolean": {"type": ["boolean"]},
    "date": {"type": ["string"], "format": "date"},
    "time without time zone": {"type": ["string"], "format": "time"},
    "timestamp without time zone": {"type": ["string"], "format": "date-time"},
    "timestamp with time zone": {"type": ["string"], "format": "date-time"},
    "uuid": {"type": ["string"], "format": "uuid"},
    "hstore": {"type": ["object"], "additionalProperties": True},
}


def json_schema(type_: str, *, nullable: bool, json_as_object: bool, dates_as_string: bool) -> dict[str, Any]:
    """Return the JSON schema of a column, for targets that don't know PostgreSQL's types."""
    if type_.endswith("[]"):
        items = json_schema(type_[:-2], nullable=True, json_as_object=json_as_object, dates_as_string=dates_as_string)
        items.pop("x-sql-datatype")
        schema: dict[str, Any] = {"type": ["array"], "items": items}
    elif type_ in {"json", "jsonb"}:
        kinds = ["object"] if json_as_object else ["string", "number", "integer", "array", "object", "boolean"]
        schema = {"type": kinds, "additionalProperties": True}
    else:
        # in numeric(12,2) or timestamp(3) with time zone, the modifier is not part of the name
        head, _, tail = type_.partition("(")
        bare = head + tail.partition(")")[2]
        schema = dict(_JSON_TYPES.get(bare, {"type": ["string"]}))
        if dates_as_string and schema.get("format") in {"date", "date-time"}:
            del schema["format"]
    if nullable:
        schema["type"] = [*schema["type"], "null"]
    schema["x-sql-datatype"] = type_
    return schema
