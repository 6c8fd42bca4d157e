"""Passwords of the embedded servers: made once, kept in .env, never committed."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import dotenv

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tidemark.project import Project
    from tidemark.settings import Side


def ensure_passwords(project: Project, sides: Iterable[Side]) -> bool:
    """Write a new password to .env for each embedded side that has none; return whether any was."""
    wanting = [side for side in sides if side.embedded and side.password is None]
    if wanting:
        # neither set_key nor a copy of .env.example is closed to others
        project.dotenv.touch()
        project.dotenv.chmod(0o600)
    for side in wanting:
        # letters, digits, - and _ only: needs no quoting in a shell, a URL or a file
        dotenv.set_key(project.dotenv, f"{side.prefix}_PASSWORD", secrets.token_urlsafe(24), quote_mode="never")
    return bool(wanting)
