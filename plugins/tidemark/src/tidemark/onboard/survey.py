"""Reads from a source all that a proposal needs: its catalogs, a sample's shapes, and hints about time zones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from singer_postgres.core.errors import one_line
from tidemark.errors import SourceUnreachableError, TidemarkError, UsageError
from tidemark.onboard import catalog, sample, zones
from tidemark.onboard.rules import Facts, Wanted, propose
from tidemark.project.connections import SNAPSHOT, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tidemark.onboard.proposal import Proposal
    from tidemark.project.database_settings import DatabaseSettings


def survey(
    side: DatabaseSettings,
    wanted: Wanted,
    *,
    schemas: Sequence[str] = (),
    look_at_values: bool = True,
    began: Callable[[str], None] = lambda _: None,
) -> Proposal:
    """Read the source and propose how to read its tables. It writes nothing, and no value leaves the server.

    Args:
        schemas: the source's schemas; empty for all.
        look_at_values: sample text for the shapes of personal data.
        began: called with each step, in words.

    Raises:
        UnreachableError: the source doesn't answer, or stops answering.
        UsageError: a schema or a pattern names nothing.
        TidemarkError: the source can't be read.
    """
    try:
        with connect(side, any_pool=True) as connection:
            # if a pooler changes the session, it lacks statements that were prepared in the last one
            connection.prepare_threshold = None
            with connection.transaction():
                connection.execute(SNAPSHOT)
                began("Reading the catalogs")
                found = catalog.read(connection, schemas or None)
                _require(found, schemas, side)
                first = propose(Facts(found), wanted)
            began("Sampling for personal data")
            shares = sample.shares(connection, [each.table for each in first.read]) if look_at_values else {}
            hints = zones.hints(connection, [(each.table, key) for each in first.read if (key := each.candidate)])
    except psycopg.OperationalError as error:
        if isinstance(error, psycopg.errors.LockNotAvailable):
            raise TidemarkError(
                f"A table of the {side} is locked: {one_line(error)}; try again in a moment."
            ) from error
        raise SourceUnreachableError(
            f"The {side} stopped answering: {one_line(error)}; fix that and run this again."
        ) from error
    except (psycopg.Error, UnicodeDecodeError) as error:
        raise TidemarkError(f"The {side} can't be described: {one_line(error)}.") from error
    return propose(Facts(found, shares, hints), wanted)


def _require(found: catalog.SourceCatalog, schemas: Sequence[str], side: DatabaseSettings) -> None:
    if missing := sorted(set(schemas) - {table.schema for table in found.tables}):
        raise UsageError(f"--schemas: the {side} has no table in {', '.join(map(repr, missing))}.")
    if not found.tables:
        raise UsageError(f"The {side} has no tables.")
