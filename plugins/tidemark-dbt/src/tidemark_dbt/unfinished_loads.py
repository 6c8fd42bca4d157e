"""Leaves out what stands on a raw table whose first load has not ended: until then, it can have a row twice.

The target builds the key of a table at the end of its first load (`singer_postgres.core.warehouse.late_key`), and only
then are older versions of a row removed. A model with SQL of its own would keep both.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dbt.graph.selector import NodeSelector
from dbt.task.retry import RETRYABLE_STATUSES, RetryTask
from psycopg2 import sql

from tidemark_dbt import source_parts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_STATE = "_tidemark_state"
_SCHEMAS = """
    select n.nspname from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = 'key_pending' and not a.attisdropped
    where c.relname = %s and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
"""
_WITHOUT_KEY = """
    select table_name from {state}
    cross join lateral (select to_regclass(format('%%I.%%I', %s, table_name))::oid as oid) raw
    where key_pending and raw.oid is not null and not exists (
        select from pg_catalog.pg_index where indrelid = raw.oid and indisunique and indisvalid
    )
"""


def find(connection: Any) -> set[tuple[str, str]]:
    """Return the raw tables without their key, as far as this role may know, each with its schema.

    Args:
        connection: a psycopg2 connection in autocommit.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SCHEMAS, [_STATE])
        found = set()
        for (schema,) in cursor.fetchall():
            cursor.execute(sql.SQL(_WITHOUT_KEY).format(state=sql.Identifier(schema, _STATE)), [schema])
            found |= {(schema, table) for (table,) in cursor.fetchall()}
    return found


class LeftOut:
    """What dbt leaves out because of tables whose first load has not ended."""

    def __init__(self) -> None:
        self._nodes: set[str] = set()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self._nodes)

    def leave_out(self, tables: set[tuple[str, str]]) -> None:
        """Have dbt leave out what stands on these tables, and say so."""
        if not tables:
            return
        select, repeat = NodeSelector.filter_selection, RetryTask.run

        def filter_selection(selector: NodeSelector, selected: set[str]) -> set[str]:
            found: set[str] = select(selector, selected)
            return found - self._left(selector.manifest, source_parts.parents_in(selector), tables, found)

        def run(task: RetryTask) -> Any:
            # it selects nothing, and repeats what did not succeed in these results
            task.manifest.build_parent_and_child_maps()
            results = task.previous_results
            repeated = {each.unique_id for each in results.results if each.status in RETRYABLE_STATUSES}
            left = self._left(task.manifest, task.manifest.parent_map, tables, repeated)
            results.results = [each for each in results.results if each.unique_id not in left]
            return repeat(task)

        NodeSelector.filter_selection, RetryTask.run = filter_selection, run

    def _left(
        self, manifest: Any, parents: Mapping[str, Collection[str]], tables: set[tuple[str, str]], nodes: set[str]
    ) -> set[str]:
        """Return which of some nodes stand on the tables, and say so of those that are new."""
        sources = {node: (source.schema, source.identifier) for node, source in manifest.sources.items()}
        below = source_parts.below(parents, sources)
        known = manifest.nodes
        left = {node: below[node] & tables for node in nodes if node in known and below[node] & tables}
        # dbt selects twice for a build
        new = left.keys() - self._nodes
        self._nodes |= new
        source_parts.tell("left_out", (known[node] for node in new))
        for table in sorted(tables):
            if on_it := [known[node] for node in new if table in left[node]]:
                sys.stdout.write(f"{_line(table, on_it)}\n")
        sys.stdout.flush()
        return set(left)


def _line(table: tuple[str, str], nodes: Iterable[Any]) -> str:
    names = sorted(node.name for node in nodes if source_parts.is_built(node))
    return (
        f"warning: the first load of {'.'.join(table)} has not ended, and until then the table can have a row twice. "
        f"Left out: {', '.join(names) or 'tests that stand on it'}. `tidemark status` shows the load."
    )
