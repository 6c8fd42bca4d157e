"""The type that a column has in the warehouse, as far as the source's catalogs alone can tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from singer_postgres.core.source.masks import AS_TEXT

if TYPE_CHECKING:
    from tidemark.onboard.source_tables import SourceColumn

_INTEGERS = frozenset({"smallint", "integer", "bigint"})
_NUMBERS = _INTEGERS | {"real", "double precision", "numeric", "money", "oid"}
_TIMESTAMPS = frozenset({"timestamp without time zone", "timestamp with time zone"})
_TIMES = _TIMESTAMPS | {"time without time zone", "time with time zone", "interval"}
_TEXTS = frozenset({"text", "character varying", "character", "uuid", "inet", "cidr", "macaddr", "macaddr8", "jsonb"})
_RANGES = frozenset(
    f"{kind}{form}" for kind in ("int4", "int8", "num", "ts", "tstz", "date") for form in ("range", "multirange")
)
# Built-in types whose values can be compared, which a table that is built in place needs. json, xml and the geometric
# types have no equality; bytea and tsvector have one, and don't belong into a mart.
_COMPARABLE = _NUMBERS | _TIMES | _TEXTS | _RANGES | {"boolean", "date", "bit", "bit varying", "pg_lsn", "jsonpath"}
_LEFT_OUT = frozenset({"json", "xml", "bytea", "tsvector", "tsquery", "jsonpath", "hstore"})


def bare(type_: str) -> str:
    """Return a type's name without its modifiers."""
    head, _, tail = type_.partition("(")
    return head + tail.partition(")")[2]


def landed(column: SourceColumn, mask: str | None = None) -> str | None:
    """Return the type that a column has in the warehouse; None if only the warehouse can tell.

    It can't be told for a type of an extension, which becomes text if the warehouse lacks the extension, nor for xml.
    """
    if mask in AS_TEXT or column.enum_labels or column.kind in {"e", "c"}:
        return "text"
    type_ = column.base_type if column.kind == "d" else column.type
    element = bare(type_).removesuffix("[]")
    return type_ if element in _COMPARABLE or element in _LEFT_OUT - {"xml", "hstore"} else None


def in_mart(column: SourceColumn, mask: str | None = None) -> str | None:
    """Return the type that a column has in a mart; None if it is left out of one."""
    type_ = landed(column, mask)
    if type_ is None:
        kind = column.base_type if column.kind == "d" else column.type
        name = re.sub(r"^.*\.", "", bare(kind).removesuffix("[]")).strip('"')
        return None if name in _LEFT_OUT or name in {"geometry", "geography", "raster"} else "text"
    return type_ if bare(type_).removesuffix("[]") in _COMPARABLE - {"jsonpath"} else None


def group(column: SourceColumn, mask: str | None = None) -> str:
    """Return the part of a staging model that a column belongs to: text, numbers, booleans, dates or timestamps."""
    name = bare(landed(column, mask) or "text")
    if name == "boolean":
        return "booleans"
    if name == "date":
        return "dates"
    if name in _TIMES:
        return "timestamps"
    return "numbers" if name in _NUMBERS else "text"


def joins(left: str | None, right: str | None) -> bool:
    """Return whether PostgreSQL finds rows of one type by an index on the other."""
    if left is None or right is None:
        return False
    first, second = bare(left), bare(right)
    texts = {"text", "character varying"}
    return first == second or {first, second} <= _INTEGERS or {first, second} <= texts
