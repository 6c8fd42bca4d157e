"""Writes variables to .env, which only its owner may read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dotenv

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tidemark.project.directory import Project


def write(project: Project, values: Mapping[str, str], *, instead: str) -> None:
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
        project.dotenv.touch()
        project.dotenv.chmod(0o600)
        text = project.dotenv.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            project.dotenv.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{', '.join(values)} can't be written to {project.dotenv}: {error.strerror}; {instead}."
        ) from None
    for name, value in values.items():
        dotenv.set_key(project.dotenv, name, quoted(value), quote_mode="never")


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
