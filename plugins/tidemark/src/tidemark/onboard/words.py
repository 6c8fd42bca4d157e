"""Splits names of tables and columns into words. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_PLAIN = re.compile(r"[a-z0-9_]+")
# letters that Unicode does not decompose
_LETTERS = str.maketrans({"ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "ß": "ss", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"})


def words(name: str) -> tuple[str, ...]:
    """Return a name's words in lower case, without accents: `EmailAddress2` and `email_address_2` are the same."""
    plain = unicodedata.normalize("NFKD", name.translate(_LETTERS))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return tuple(match.lower() for match in _WORD.findall(plain))


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
