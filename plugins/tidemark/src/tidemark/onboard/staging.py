"""Writes the staging models: one view per table with names in snake case, and their YAML with the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidemark.onboard import descriptions, escaping, identifiers
from tidemark.onboard.render import render

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tidemark.onboard.dbt_tests import ChosenTests
    from tidemark.onboard.staged_columns import StagedColumn, StagedTable

_WIDTH = 120
_INDENT = 8
_FLAG = "_sdc_deleted_at is not null as is_deleted"
_STAMPS = ("_sdc_deleted_at as deleted_at", "_sdc_extracted_at as extracted_at", "_sdc_batched_at as loaded_at")


def model(table: StagedTable) -> str:
    """Return the SQL of a table's staging model."""
    groups = {name: [_select(column) for column in columns] for name, columns in table.grouped()}
    ours = {"booleans": [_FLAG], "timestamps": list(_STAMPS)}
    order = ("ids", "text", "numbers", "booleans", "dates", "timestamps")
    parts = [(name, [*groups.get(name, []), *ours.get(name, [])]) for name in order]
    return render(
        "staging.sql.jinja",
        table=table,
        groups=[(name, columns) for name, columns in parts if columns],
    )


def _select(column: StagedColumn) -> str:
    name = column.source.name
    identifier = escaping.jinja(identifiers.quoted(name))
    if name == column.alias:
        return identifier
    line = f"{identifier} as {column.sql}"
    # an alias below its column, if the line would be too long for SQLFluff
    return line if len(line) + _INDENT + 1 <= _WIDTH else f"{identifier}\n            as {column.sql}"


def properties(tables: Iterable[StagedTable], tests: ChosenTests, *, gone: Iterable[str] = ()) -> str:
    """Return the YAML that describes these tables' staging models.

    Args:
        gone: models that are still there although their tables are no longer read.
    """
    left = "The source's table is gone, or is no longer read. The warehouse keeps its rows."
    models = [_properties(table, tests) for table in tables]
    models += [{"name": name, "description": left, "columns": []} for name in gone]
    return render("models.yml.jinja", models=models)


def _properties(table: StagedTable, tests: ChosenTests) -> dict[str, Any]:
    own = table.proposal.table
    columns = [
        {
            "name": column.alias,
            "quote": identifiers.is_reserved(column.alias),
            "description": descriptions.of_column(own, column.source),
            "tests": tests.of(table.model, column.alias),
        }
        for _, group in table.grouped()
        for column in group
    ]
    columns += [{"name": name, "description": f"{{{{ doc('{name}') }}}}"} for name in identifiers.ADDED]
    return {
        "name": table.model,
        "description": descriptions.of_model(table),
        "tests": tests.of(table.model),
        "columns": columns,
    }
