"""SQL for a person to run in the source: indexes and rights that the proposal lacks. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemark.inspect.check.finding import statement
from tidemark.onboard import cost
from tidemark.onboard.proposal import Method

if TYPE_CHECKING:
    from tidemark.onboard.proposal import Proposal, TableProposal


def missing_indexes(proposal: Proposal) -> str:
    """Return the indexes that replication keys lack, those of the largest tables first; empty if none is missing.

    Small tables are left out: reading them takes no noticeable time.
    """
    bare = [
        each
        for each in proposal.read
        if each.method is Method.incremental and each.replication_key not in each.table.indexed
    ]
    large = sorted(
        (each for each in bare if not cost.is_cheap(each.table)), key=lambda each: (-each.table.bytes, str(each.table))
    )
    small = len(bare) - len(large)
    if not large:
        return ""
    lines = [
        f"-- Indexes on the replication keys of {proposal.source}, the largest tables first. Without one, each run",
        "-- scans the table. CONCURRENTLY lets others write meanwhile, and works only outside a transaction.",
    ]
    if small:
        lines.append(f"-- Left out: {small} table{'s' * (small != 1)} of {cost.shown_bytes(cost.CHEAP_BYTES)} or less.")
    return "\n".join([*lines, "", *(line for each in large for line in _index(each))]) + "\n"


def _index(proposed: TableProposal) -> list[str]:
    table, key = proposed.table, str(proposed.replication_key)
    said = f"-- {table}: {cost.shown_bytes(table.bytes)}"
    path = (table.schema, table.name)
    if table.kind != "p":
        return [said, statement("CREATE INDEX CONCURRENTLY ON {table} ({column})", table=path, column=key) + ";"]
    said += (
        f" in {table.partitions} partitions. A partitioned table has no CONCURRENTLY, so this stops writes; "
        "`tidemark check` lists the statements for each partition, which don't."
    )
    return [said, statement("CREATE INDEX ON {table} ({column})", table=path, column=key) + ";"]


def missing_grants(proposal: Proposal) -> str:
    """Return the rights that the tap's role lacks; empty if it lacks none.

    A table that row-level security hides needs a right of the role itself, which only a superuser gives: it is named in
    a comment.
    """
    role = proposal.role
    tables = [each.table for each in proposal.tables]
    lines = [
        statement("GRANT USAGE ON SCHEMA {schema} TO {role}", schema=schema, role=role) + ";"
        for schema in sorted({table.schema for table in tables if not table.schema_usable})
    ]
    for table in tables:
        path = (table.schema, table.name)
        closed = [column.name for column in table.columns if not column.readable]
        if closed and len(closed) < len(table.columns):
            template = "GRANT SELECT ({columns}) ON {table} TO {role}"
            lines.append(statement(template, columns=closed, table=path, role=role) + ";")
        elif closed:
            lines.append(statement("GRANT SELECT ON {table} TO {role}", table=path, role=role) + ";")
    hidden = [table for table in tables if table.hides_rows]
    if hidden:
        lines.append(f"-- Row-level security may hide rows of {', '.join(map(str, hidden))}. To read all rows:")
        lines.append("-- " + statement("ALTER ROLE {role} BYPASSRLS", role=role) + ";")
    if not lines:
        return ""
    head = f"-- Rights that {role} lacks to read all tables of {proposal.source}. A table's owner can give them."
    return "\n".join([head, *lines]) + "\n"
