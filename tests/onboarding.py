"""A proposal for a source that a test made, from its catalogs, with every question answered by no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidemark.onboard import catalog
from tidemark.onboard.propose import Facts, Wanted, propose
from tidemark.project.connections import SNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from tidemark.onboard.names import TableNames
    from tidemark.onboard.proposal import Proposal


def proposal(
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
