"""Compares bookmarks, which are texts: instants in ISO 8601, numbers, or other text."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation


def reaches(bookmark: str, start: str) -> bool:
    """Return whether `bookmark` is at or past `start`. Instants and numbers are compared; text must be equal."""
    if bookmark == start:
        return True
    numbers = _number(bookmark), _number(start)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] >= numbers[1]
    instants = _instant(bookmark), _instant(start)
    return instants[0] is not None and instants[1] is not None and instants[0] >= instants[1]


def comparable(bookmark: str, other: str) -> bool:
    """Return whether both are instants, or both numbers, or neither."""
    return all((of(bookmark) is None) == (of(other) is None) for of in (_instant, _number))


def has_known_order(bookmark: str) -> bool:
    """Return whether the bookmark is an instant or a number. Text has the order of its collation, unknown here."""
    return _instant(bookmark) is not None or _number(bookmark) is not None


def _instant(text: str) -> datetime | None:
    if _number(text) is not None:
        # fromisoformat takes 20261201122 for the first of December, 12:02
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    # a bookmark without a zone belongs to a column without one, and is only compared with its like
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _number(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    # earlier releases could store NaN as a bookmark, which can't be compared
    return None if value.is_nan() else value
