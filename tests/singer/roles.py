"""The project's roles in the warehouse of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from tidemark import roles

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe


def apply_roles(pipe: Pipe) -> None:
    """Run the SQL of `tidemark roles warehouse`."""
    execute(pipe, roles.statements("warehouse"))


def execute(pipe: Pipe, statements: str) -> None:
    """Run statements in the warehouse."""
    with pipe.warehouse() as connection:
        connection.execute(statements.encode())


def as_loader(pipe: Pipe) -> psycopg.Connection[Any]:
    """Connect as the target does."""
    user, password = pipe.target["user"], pipe.target["password"]
    return psycopg.connect(pipe.warehouse_url, user=user, password=password)
