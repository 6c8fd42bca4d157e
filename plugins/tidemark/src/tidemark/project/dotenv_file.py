"""Reads and writes .env, which only its owner may read."""

from __future__ import annotations

import functools
import io
import os
from typing import TYPE_CHECKING

import dotenv

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read(path: Path) -> Mapping[str, str | None]:
    """Return the variables of a file, with `${NAME}` expanded as Meltano does it; nothing if there is no file."""
    if not path.exists():
        return {}
    return _parsed(path.read_text(encoding="utf-8"), frozenset(os.environ.items()))


# python-dotenv takes ten milliseconds for a hundred lines, and a command with many sources reads them often
@functools.lru_cache(maxsize=8)
def _parsed(text: str, _expanded_with: frozenset[tuple[str, str]]) -> Mapping[str, str | None]:
    return dotenv.dotenv_values(stream=io.StringIO(text))


def write(path: Path, values: Mapping[str, str], *, instead: str) -> None:
    """Set variables in .env and keep all its other lines.

    Args:
        instead: what to do if the file can't be written.

    Raises:
        UsageError: the file can't be written.
    """
    if not values:
        return
    try:
        # dotenv.set_key and copies of .env.example would leave the file readable for others
        path.touch()
        path.chmod(0o600)
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{', '.join(values)} can't be written to {path}: {error.strerror}; {instead}.") from None
    for name, value in values.items():
        dotenv.set_key(path, name, quoted(value), quote_mode="never")


def quoted(value: str) -> str:
    r"""Return a value as .env holds it: in single quotes, if it has characters with a meaning there.

    >>> quoted("db.example.com")
    'db.example.com'
    >>> print(quoted("it's ${x}"))
    'it\'s ${:-$}{x}'
    """
    if value.isascii() and all(character.isalnum() or character in "-_=.:/@" for character in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "${:-$}{")
    return f"'{escaped}'"
