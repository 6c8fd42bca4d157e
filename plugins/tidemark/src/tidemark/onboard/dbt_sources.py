"""Writes a source's tables for dbt: raw tables with all columns, and how fresh they must be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tidemark.onboard import descriptions
from tidemark.onboard.render import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tidemark.onboard.staged_columns import StagedSource

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


def sources(source: StagedSource, target: str, *, gone: Mapping[str, str] | None = None, with_runs: bool = True) -> str:
    """Return the text of `_sources.yml`.

    Args:
        target: the name of the source's target, whose variable can name another schema.
        gone: raw tables that are no longer read and that a model still reads, by their name among dbt's sources.
        with_runs: whether to describe the record of runs; not if another file already does.
    """
    variable = re.sub(r"\W", "_", f"{target}_default_target_schema").upper()
    schema = source.proposal.raw_schema.replace("'", "''")
    tables = [
        {
            "name": table.source_name,
            "identifier": table.proposal.raw_name,
            "description": descriptions.of_table(table.proposal.table),
            "is_first": place == 0,
            "columns": [
                (name, descriptions.of_column(table.proposal.table, column.source))
                for name, column in table.columns.items()
            ],
        }
        for place, table in enumerate(source.tables.values())
    ]
    return render(
        "sources.yml.jinja",
        source=source,
        schema=f"\"{{{{ env_var('{variable}', '') or '{schema}' }}}}\"",
        description=f"The tables of {source.proposal.source} as the loader wrote them, with deleted rows marked.",
        tables=tables,
        metadata=list(_METADATA.items()),
        gone=sorted((gone or {}).items()),
        with_runs=with_runs,
    )
