"""Values of the log as a record has them: the same as those that `records` reads from the table."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from psycopg2 import extensions, extras, sql

from singer_postgres.core.source import relations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.pgoutput import RelationColumn

_FLOAT4, _FLOAT8, _NUMERIC = 700, 701, 1700
_DATE, _TIMESTAMP, _TIMESTAMPTZ = 1082, 1114, 1184
# with dates_as_string, the MeltanoLabs tap registers others for the whole process
_CASTERS = {_DATE: extensions.PYDATE, _TIMESTAMP: extensions.PYDATETIME, _TIMESTAMPTZ: extensions.PYDATETIMETZ}
_MOST = Decimal("1.7976931348623157e308")
_time = re.compile(r"([0-9:]+)(\.\d+)?(.*)").fullmatch


class UncarriedError(ValueError):
    """JSON, or the driver, would alter a value."""


def base_types(connection: Connection, columns: Sequence[RelationColumn]) -> tuple[list[int], Any]:
    """Return the oids of the columns' types, of a domain its base type's; and a cursor, which casters need."""
    types = relations.column_types(connection, [(column.type_oid, column.type_modifier) for column in columns])
    nulls = sql.SQL(", ").join(sql.SQL(f"NULL::{declared}") for declared, _ in types)
    cursor = connection.cursor()
    cursor.execute(sql.SQL("SELECT ") + nulls)
    assert cursor.description
    return [column.type_code for column in cursor.description], cursor


def reader(schema: Mapping[str, Any], type_oid: int, cursor: Any) -> Callable[[str], Any]:
    """Return the function that turns a value's text into that of a record; it raises UncarriedError.

    Args:
        schema: the column's JSON schema.
        type_oid: its type, of a domain the base type.
    """
    read = _reader(schema, type_oid, cursor)
    if type_oid in {_FLOAT4, _FLOAT8, _NUMERIC}:
        return lambda text: _finite(read(text))
    if type_oid in _CASTERS:
        return lambda text: _refused(text) if text.endswith("infinity") else read(text)
    if str(schema.get("x-sql-datatype", "")).endswith("[]"):
        # bounds of its own
        return lambda text: _refused(text) if text.startswith("[") else read(text)
    return read


def _reader(schema: Mapping[str, Any], type_oid: int, cursor: Any) -> Callable[[str], Any]:
    """Return the same, as `records` selects the column."""
    kinds, items = set(schema.get("type", [])), set(schema.get("items", {}).get("type", []))
    type_ = str(schema.get("x-sql-datatype", ""))
    if type_ == "hstore" and "object" in kinds:
        return lambda text: extras.HstoreAdapter.parse(text, cursor)
    if type_ == "hstore[]" and "object" in items:
        return lambda text: [
            each and extras.HstoreAdapter.parse(each, cursor) for each in extensions.STRINGARRAY(text, cursor)
        ]
    if type_.startswith("time") and not type_.startswith("timestamp") and not type_.endswith("[]"):
        return _iso_time
    if kinds <= {"string", "null"} and schema.get("format") in {None, "uuid", "time"}:
        return str
    if kinds - {"null"} == {"array"} and items <= {"string", "null"}:
        return lambda text: extensions.STRINGARRAY(text, cursor)
    caster = _CASTERS.get(type_oid) or extensions.string_types.get(type_oid)
    return str if caster is None else lambda text: caster(text, cursor)


def _iso_time(text: str) -> str:
    """Return a time as Python writes it: no fraction or six digits of it, and an offset in hours and minutes."""
    found = _time(text)
    assert found
    clock, fraction, zone = found.groups()
    fraction = f"{fraction:0<7}" if fraction else ""
    return f"{clock}{fraction}{f'{zone}:00' if len(zone) == 3 else zone}"  # noqa: PLR2004 - as in +02


def _finite(value: Any) -> Any:
    is_finite = not isinstance(value, float | Decimal) or math.isfinite(value)
    if not is_finite or (isinstance(value, Decimal) and abs(value) > _MOST):
        raise UncarriedError
    return value


def _refused(text: str) -> Any:
    raise UncarriedError(text)
