"""Writes names for files and for sentences. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tidemark.inspect.column_names import words

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = re.compile(r"[a-z0-9_]+")


def snake_case(name: str) -> str:
    """Return a name in lower case ASCII letters, digits and underscores; empty if nothing is left of it."""
    if _PLAIN.fullmatch(name):
        return name
    found = ""
    for word in words(name):
        if word.isascii():
            found += word if word.isdigit() and found else f"_{word}"
    return found.strip("_")


def listed(names: Iterable[object], limit: int = 6) -> str:
    """Return names for a sentence; of many, only the first ones."""
    every = [str(name) for name in names]
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more
