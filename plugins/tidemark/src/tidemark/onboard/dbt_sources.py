"""Writes a source's tables for dbt: raw tables with all columns, and how fresh they must be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tidemark.onboard import descriptions
from tidemark.onboard.render import render
from tidemark.onboard.staged_columns import dbt_source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from tidemark.onboard.staged_columns import StagedSource, StagedTable

# the loader's columns, which each raw table has
_METADATA = {
    "_sdc_extracted_at": "{{ doc('extracted_at') }}",
    "_sdc_received_at": "When the loader received the row.",
    "_sdc_batched_at": "{{ doc('loaded_at') }}",
    "_sdc_deleted_at": "{{ doc('deleted_at') }}",
    "_sdc_sequence": "When the row's chunk was queued, in milliseconds since 1970.",
    "_sdc_table_version": "The version of the table, for a stream that is read in full; otherwise null.",
    "_sdc_sync_started_at": "When the run's loader started, in milliseconds since 1970.",
    "_tidemark_loaded_xid": "{{ doc('loaded_xid') }}",
}


def sources(
    source: StagedSource,
    targets: Mapping[str, str],
    *,
    gone: Iterable[tuple[str, str, str]] = (),
    described: Collection[str] = (),
) -> str:
    """Return the text of `_sources.yml`. Each raw schema is a source of dbt's.

    Args:
        targets: the target of each raw schema, whose variable can name another schema.
        gone: raw tables that are no longer read and that a model still reads: raw schema, name in dbt, name.
        described: raw schemas whose record of runs another file describes.
    """
    gone = sorted(gone)
    by_schema: dict[str, list[StagedTable]] = {schema: [] for schema in targets}
    for table in source.tables.values():
        by_schema[table.raw_schema].append(table)
    found: list[dict[str, Any]] = [
        {
            "name": dbt_source(schema),
            "schema": _schema(schema, targets[schema]),
            "description": f"Tables of {source.proposal.source} as the loader wrote them, with deleted rows marked.",
            "tables": [_table(table) for table in tables],
            "gone": [(name, identifier) for where, name, identifier in gone if where == schema],
            "with_runs": schema not in described,
        }
        for schema, tables in by_schema.items()
    ]
    # an anchor is written before its aliases
    for table in [table for each in found for table in each["tables"]][:1]:
        table["is_first"] = True
    return render("sources.yml.jinja", sources=found, metadata=list(_METADATA.items()))


def _schema(raw_schema: str, target: str) -> str:
    variable = re.sub(r"\W", "_", f"{target}_default_target_schema").upper()
    escaped = raw_schema.replace("'", "\\'")
    return f"\"{{{{ env_var('{variable}', '') or '{escaped}' }}}}\""


def _table(table: StagedTable) -> dict[str, Any]:
    own = table.proposal.table
    return {
        "name": table.source_name,
        "identifier": table.proposal.raw_name,
        "description": descriptions.of_table(own),
        "is_first": False,
        "columns": [(name, descriptions.of_column(own, column.source)) for name, column in table.columns.items()],
    }
