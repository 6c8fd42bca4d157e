"""Masks of values that come from the log, the same as those that the source computes when a table is read."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from singer_postgres.core.source.stream_query import REDACTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from singer_postgres.core.source.pgoutput import RelationColumn

_BOOL, _BPCHAR = 16, 1042
# a cast to text differs from the type's output, which the log has
_AS_TEXT: dict[int, Callable[[bytes], bytes]] = {
    _BOOL: lambda value: b"true" if value == b"t" else b"false",
    _BPCHAR: lambda value: value.rstrip(b" "),
}


def masked_by(
    columns: Iterable[RelationColumn], masks: Mapping[str, str], secret: str | None
) -> dict[str, Callable[[bytes], bytes | None]]:
    """Return functions that mask a column's value, by column."""
    return {
        column.name: _mask(masks[column.name], column.type_oid, secret) for column in columns if column.name in masks
    }


def is_text(declared: str) -> bool:
    """Return whether a type's binary form is its text."""
    return declared.partition("(")[0] in {"text", "character varying", "character", "bpchar"}


def _mask(mask: str, type_oid: int, secret: str | None) -> Callable[[bytes], bytes | None]:
    if mask == "null":
        return lambda _: None
    if mask == "redact":
        return lambda _: REDACTED.encode()
    # as in stream_query.mask_key_statement
    key = hashlib.sha256((secret or "").encode()).digest()
    as_text = _AS_TEXT.get(type_oid, bytes)
    return lambda value: hmac.new(key, as_text(value), "sha256").hexdigest().encode()
