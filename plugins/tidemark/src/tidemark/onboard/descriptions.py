"""Says in words what a table or a column holds: its comment in the source, or else a plain sentence.

dbt renders descriptions with Jinja, so what comes from the source is escaped here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemark.onboard.escaping import jinja

if TYPE_CHECKING:
    from tidemark.onboard.source_tables import SourceColumn, SourceTable
    from tidemark.onboard.staged_columns import StagedTable


def of_table(table: SourceTable) -> str:
    """Return a table's description."""
    return _comment(table.comment) or jinja(f"One row per row of the source's {table}, which has no comment.")


def of_model(table: StagedTable) -> str:
    """Return a staging model's description, which begins with what a row is."""
    own = table.proposal.table
    key = " and ".join(own.key)
    grain = jinja(f"One row per {key or 'row'} of the source's {own}{'' if key else ', without a key'}.")
    comment = _comment(own.comment)
    return f"{grain}\n\n{comment}" if comment else grain


def of_column(table: SourceTable, column: SourceColumn) -> str:
    """Return a column's description."""
    if comment := _comment(column.comment):
        return comment
    if table.key == (column.name,):
        return "Primary key." if table.has_primary_key else "Key."
    for key in table.foreign_keys:
        if column.name in key.columns:
            referred = key.to_columns[key.columns.index(column.name)]
            return jinja(f"Refers to {referred} of {key.to_schema}.{key.to_table}.")
    return jinja(f"{column.name}, {column.type}, without a comment in the source.")


def _comment(text: str | None) -> str:
    """Return a comment without the blanks around its lines, which nobody sees."""
    return jinja("\n".join(line.strip() for line in (text or "").strip().splitlines()))
