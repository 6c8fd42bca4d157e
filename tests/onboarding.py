"""Proposals for the tests of onboarding: of a source from its catalogs, and of tables made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidemark.inspect.foreign_keys import ForeignKey
from tidemark.onboard import catalog, identifiers
from tidemark.onboard.proposal import Method, Proposal, TableProposal
from tidemark.onboard.rules import Facts, Wanted, propose
from tidemark.onboard.source_tables import SourceColumn, SourceTable, ValueList
from tidemark.project.connections import SNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from tidemark.onboard.names import TableNames


def from_catalogs(
    connection: psycopg.Connection[Any], source: str, kept: Mapping[str, TableNames] | None = None
) -> Proposal:
    """Return a proposal for all tables of a database.

    Args:
        kept: names that an earlier onboarding gave.
    """
    with connection.transaction():
        connection.execute(SNAPSHOT)
        found = catalog.read(connection)
    return propose(Facts(found), Wanted(source, kept=kept or {}))


def column(name: str, type_: str = "text", **more: Any) -> SourceColumn:
    """Return a column."""
    return SourceColumn(name, type_, more.pop("base_type", type_), **more)


def table(
    name: str, *columns: SourceColumn, schema: str = "public", key: tuple[str, ...] = ("id",), **more: Any
) -> TableProposal:
    """Return a table that is read whole, from a source x."""
    found = SourceTable(schema, name, "r", columns, key=key, has_primary_key=bool(key), **more)
    return TableProposal(found, Method.full_table, "small", raw_name=name, model=f"stg_x__{identifiers.legal(name)}")


def proposal(*tables: TableProposal) -> Proposal:
    """Return the proposal for a source x."""
    return Proposal("x", "raw_x", tables)


PARENT = table("parent", column("id", "bigint"), column("title"), rows=5)
CHILD = table(
    "child",
    column("id", "bigint"),
    column("parent_id", "bigint"),
    column("state"),
    rows=9,
    foreign_keys=(ForeignKey("child_parent", ("parent_id",), "public", "parent", ("id",)),),
    value_lists=(ValueList("state", ("new", "won't", "{{ x }}")),),
)
