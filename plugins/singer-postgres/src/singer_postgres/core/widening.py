"""Says which types can hold the values of which others. Pure: it knows PostgreSQL's rules, and no database."""

from __future__ import annotations

import re
from dataclasses import dataclass

# the number of digits of their largest values
_INTEGERS = {"smallint": 5, "integer": 10, "bigint": 19}
_TEXTS = ("text", "character varying")
# each value has one text form, whatever the settings
_PLAIN = frozenset({*_INTEGERS, "numeric", "uuid", "boolean"})
_WITH_PRECISION = frozenset(
    {
        *("timestamp without time zone", "timestamp with time zone", "time without time zone", "time with time zone"),
        "bit varying",
    }
)


@dataclass(frozen=True)
class _Type:
    """A type's name without its modifiers, and the modifiers."""

    name: str
    modifiers: tuple[int, ...]
    array: bool

    @classmethod
    def of(cls, declared: str) -> _Type:
        """Parse a type's name as format_type() gives it."""
        array = declared.endswith("[]")
        found = re.fullmatch(r"(.*?)\(([-\d,]+)\)(.*)", declared.removesuffix("[]"))
        if not found:
            return cls(declared.removesuffix("[]"), (), array)
        return cls(found[1] + found[3], tuple(map(int, found[2].split(","))), array)

    @property
    def length(self) -> float:
        """The length of a text or bit string, or the precision of a second's fraction."""
        return self.modifiers[0] if self.modifiers else float("inf")

    @property
    def scale(self) -> float:
        """The digits after a numeric's point."""
        return self.modifiers[1] if self.modifiers else float("inf")

    @property
    def whole(self) -> float:
        """The digits before a numeric's point."""
        return self.modifiers[0] - self.modifiers[1] if self.modifiers else float("inf")


def widens(was: str, now: str) -> bool:
    """Return whether a column of type `was` can become one of type `now` and keep all its values.

    PostgreSQL's own cast then gives the same values here as in the source.
    """
    a, b = _Type.of(was), _Type.of(now)
    if a.array != b.array:
        return False
    if b.name == "numeric":
        same = a.name == "numeric"
        return b.whole >= (a.whole if same else _INTEGERS.get(a.name, float("nan"))) and (
            not same or b.scale >= a.scale
        )
    if b.name in _TEXTS and b.length == float("inf"):
        return a.name in _PLAIN or a.name in {*_TEXTS, "character"}
    if a.name == b.name == "character" or (a.name in {"character", "character varying"} and b.name in _TEXTS):
        return b.length >= a.length
    if (a.name, b.name) in {("real", "double precision"), ("date", "timestamp without time zone")}:
        return a.name == "real" or b.length == float("inf")
    return _longer(a, b)


def holds(has: str, now: str) -> bool:
    """Return whether a column of type `has` can store all values of type `now`, and gives them back unchanged."""
    a, b = _Type.of(now), _Type.of(has)
    if a.array != b.array:
        return False
    if b.name == "numeric":
        if a.name == "numeric":
            return not b.modifiers or (b.scale == a.scale and b.whole >= a.whole)
        return a.name in _INTEGERS and (not b.modifiers or (b.scale == 0 and b.whole >= _INTEGERS[a.name]))
    if b.name in _TEXTS and a.name in _TEXTS:
        return b.length >= a.length
    return _longer(a, b)


def _longer(a: _Type, b: _Type) -> bool:
    """Return whether `b` is the same type as `a` with at least as much room."""
    if a.name in _INTEGERS and b.name in _INTEGERS:
        return _INTEGERS[b.name] >= _INTEGERS[a.name]
    return a.name == b.name and (a.modifiers == b.modifiers or (a.name in _WITH_PRECISION and b.length >= a.length))
