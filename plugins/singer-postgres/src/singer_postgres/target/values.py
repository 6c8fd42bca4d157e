"""Converts a record's values for COPY, by the type of their column. Pure.

The stored values are the same as with the MeltanoLabs target, with three exceptions: null is SQL's null in JSON columns
too, a timestamp with an offset is converted to UTC whatever the server's time zone, and an object in a text column is
stored as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import simplejson

if TYPE_CHECKING:
    from collections.abc import Iterable

Converter = Callable[[Any], Any]

_NUMBERS = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})


def converter(  # noqa: PLR0911 - one return per type
    type_: str, schema: Mapping[str, Any], *, sanitize: bool, base16: bool = False
) -> Converter:
    """Return the function that converts a column's values, other than None, for COPY.

    Args:
        type_: the column's type, as format_type() gives it.
        schema: the JSON schema of the property.
        sanitize: replace NUL characters, which PostgreSQL can't store, with U+FFFD.
        base16: values of a bytea column are hexadecimal if the schema says so.
    """
    bare = _bare(type_)
    if (source := schema.get("x-sql-datatype")) in {"hstore", "hstore[]"} and bare not in {"json", "jsonb", "jsonb[]"}:
        return _hstore if source == "hstore" else lambda value: _array(value, _hstore)
    if bare.endswith("[]"):
        element = converter(bare.removesuffix("[]"), {}, sanitize=sanitize)
        return lambda value: _array(value if isinstance(value, list) else [value], element)
    if bare in {"json", "jsonb"}:
        return _json_sanitized if sanitize else _json
    if bare == "bytea" and base16 and schema.get("contentEncoding") == "base16":
        return _hexadecimal
    if bare == "timestamp without time zone":
        return _timestamp
    if bare in _NUMBERS:
        return _as_it_is
    return _text_sanitized if sanitize else _text


def _bare(type_: str) -> str:
    """Return a type's name without its modifiers."""
    head, _, tail = type_.partition("(")
    return head + tail.partition(")")[2]


def _as_it_is(value: Any) -> Any:
    return value


def _timestamp(value: Any) -> Any:
    """Return a timestamp in UTC: PostgreSQL ignores the offset if the column has no time zone."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            # PostgreSQL accepts other forms too
            return value
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return value.isoformat(" ")
    return _text(value)


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list):
        return _json(value)
    return value if isinstance(value, bytes) else str(value)


def _text_sanitized(value: Any) -> Any:
    text = _text(_without_nul(value) if isinstance(value, Mapping | list) else value)
    return text.replace("\0", "\ufffd") if isinstance(text, str) else text


def _hstore(value: Any) -> Any:
    """Return the text form of an hstore, which a record has as an object."""
    if not isinstance(value, Mapping):
        return _text(value)

    def quoted(part: Any) -> str:
        return '"' + str(_text(part)).replace("\\", "\\\\").replace('"', '\\"') + '"'

    return ", ".join(f"{quoted(name)}=>{'NULL' if part is None else quoted(part)}" for name, part in value.items())


def _json(value: Any) -> str:
    return simplejson.dumps(value, use_decimal=True, default=str)


def _json_sanitized(value: Any) -> str:
    text = _json(value)
    # this is the escape of NUL, or a backslash before "u0000": only the parsed value shows which
    return _json(_without_nul(value)) if r"\u0000" in text else text


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {_without_nul(name): _without_nul(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_nul(part) for part in value]
    return value


def _hexadecimal(value: Any) -> Any:
    """Decode hexadecimal text, with or without 0x. A leading zero may be missing.

    Raises:
        ValueError: the text is not hexadecimal.
    """
    if not isinstance(value, str):
        return value
    digits = value[2:] if value.startswith(("0x", "\\x")) else value
    return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)


def _array(values: Iterable[Any], element: Converter) -> str:
    """Return PostgreSQL's text form of an array."""
    return "{" + ",".join("NULL" if value is None else _element(value, element) for value in values) + "}"


def _element(value: Any, element: Converter) -> str:
    if isinstance(value, list) and element not in {_json, _json_sanitized}:
        return _array(value, element)
    text = element(value)
    if isinstance(text, bytes):
        text = "\\x" + text.hex()
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
