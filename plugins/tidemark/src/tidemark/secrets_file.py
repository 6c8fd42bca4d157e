"""Passwords of the embedded servers: made once, kept in .env, never committed."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import dotenv

from tidemark import settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tidemark.project import Project
    from tidemark.settings import Side


def ensure_passwords(project: Project, sides: Iterable[Side]) -> bool:
    """Write to .env a new password for each role of the embedded sides that has none; return whether any was."""
    embedded = [side for side in sides if side.embedded]
    wanting = [f"{side.prefix}_PASSWORD" for side in embedded if side.password is None]
    if embedded and settings.admin(project, embedded[0]).password is None:
        wanting.insert(0, "TIDEMARK_ADMIN_PASSWORD")
    warehouses = [side for side in embedded if isinstance(side, settings.Warehouse)]
    if warehouses and settings.transformer(project, warehouses[0]).password is None:
        wanting.append("DBT_POSTGRES_PASSWORD")
    if wanting:
        # neither set_key nor a copy of .env.example is closed to others
        project.dotenv.touch()
        project.dotenv.chmod(0o600)
    for name in wanting:
        # letters, digits, - and _ only: needs no quoting in a shell, a URL or a file
        dotenv.set_key(project.dotenv, name, secrets.token_urlsafe(24), quote_mode="never")
    return bool(wanting)
