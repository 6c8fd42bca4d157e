"""Which type a column lands as. Pure: knows PostgreSQL's rules and no database.

Built-in types travel as they are. What exists in the source alone (domains, enums, composites, ranges of the user's)
lands as what its text can be read back from; an extension's type stays if the warehouse has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
        *("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "gtsvector", "pg_ddl_command"),
        *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
    }
)
_KINDS = {"e": "enum", "c": "composite", "r": "range of your own", "m": "multirange of your own"}

# their binary form is the same in all versions that are supported, and a value's meaning in it depends on no setting.
# Not interval: infinity, which only versions from 17 on have, would become a number in an older one.
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
    """A row of pg_type, as far as it matters here."""

    oid: int
    name: str
    built_in: bool
    kind: str
    """typtype: b(ase), c(omposite), d(omain), e(num), m(ultirange), p(seudo), r(ange)."""
    element: int
    """Of an array: the oid of its elements' type; else 0."""
    base: int
    """Of a domain: the oid of the type below it; else 0."""
    base_modifier: str
    """Of a domain: the type below it, with modifiers, as format_type() gives it."""
    delimiter: str = ","
    """Between the elements of an array of this type."""


@dataclass(frozen=True)
class TargetType:
    """The warehouse's type for a column; None if there is no way to carry it.

    Attributes:
        extension: the type is an extension's.
        binary: values can travel in their binary form.
        instead_of: what the source's type is, for people, where the warehouse gets another; else empty.
    """

    type: str | None
    extension: bool = False
    binary: bool = False
    instead_of: str = ""


def target_type(oid: int, declared: str, types: Mapping[int, Type]) -> TargetType:
    """Return what a column lands as.

    Args:
        oid: of its type.
        declared: its type with modifiers, as format_type() gives it under an empty search_path.
        types: by oid, with those they are made of.
    """
    found = types[oid]
    if found.element:
        return _array(found, declared, types)
    if found.kind == "d":
        return replace(target_type(found.base, found.base_modifier, types), instead_of=f"domain {found.name}")
    if found.kind == "p" or found.name in _UNREADABLE:
        return TargetType(None)
    if _as_text(found):
        # an enum's binary form is its label, as a text's is
        kind = _KINDS.get(found.kind)
        return TargetType("text", binary=found.kind == "e", instead_of=f"{kind} {found.name}" if kind else found.name)
    if found.built_in:
        return TargetType(declared, binary=found.name in _SAME_IN_BINARY)
    return TargetType(_unqualified(declared), extension=True)


def _as_text(type_: Type) -> bool:
    return type_.kind in "ec" or (type_.kind in "rm" and not type_.built_in) or type_.name in _BY_NAME


def _array(array: Type, declared: str, types: Mapping[int, Type]) -> TargetType:
    element = types[array.element]
    landed = target_type(array.element, element.name, types)
    if landed.type is None:
        return landed
    if landed.extension and element.delimiter != ",":
        # where the type is missing, an array of text would be read as if commas were between its elements
        return TargetType("text", instead_of=f"array of {element.name}")
    if element.kind != "d" and not _as_text(element):
        # as they are, elements keep the array's own modifiers: numeric(12,2)[]. Not an array by its name: int2vector,
        # which refuses what its own binary form is when empty.
        return TargetType(_unqualified(declared), landed.extension, landed.binary and declared.endswith("[]"))
    if landed.type.endswith("[]"):
        # of a domain of arrays: each element is an array's text, and not one more dimension
        return TargetType("text[]", instead_of=f"array of {landed.instead_of}")
    return TargetType(landed.type + "[]", landed.extension, instead_of=f"array of {landed.instead_of}")


def _unqualified(declared: str) -> str:
    """Drop the schema of an extension's type: it may live in another one in the warehouse."""
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
    """Return the JSON schema of a column, for targets that know no PostgreSQL types."""
    if type_.endswith("[]"):
        items = json_schema(type_[:-2], nullable=True, json_as_object=json_as_object, dates_as_string=dates_as_string)
        items.pop("x-sql-datatype")
        schema: dict[str, Any] = {"type": ["array"], "items": items}
    elif type_ in {"json", "jsonb"}:
        kinds = ["object"] if json_as_object else ["string", "number", "integer", "array", "object", "boolean"]
        schema = {"type": kinds, "additionalProperties": True}
    else:
        # numeric(12,2), timestamp(3) with time zone: the modifier is not part of the name
        head, _, tail = type_.partition("(")
        bare = head + tail.partition(")")[2]
        schema = dict(_JSON_TYPES.get(bare, {"type": ["string"]}))
        if dates_as_string and schema.get("format") in {"date", "date-time"}:
            del schema["format"]
    if nullable:
        schema["type"] = [*schema["type"], "null"]
    schema["x-sql-datatype"] = type_
    return schema
