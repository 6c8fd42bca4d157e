"""Which of Tidemark's tables in the warehouse the next run migrates. It reads their comments and writes nothing."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from singer_postgres.core.warehouse import (
    load_parts,
    reconcile_history,
    rejects,
    run_history,
    schema_changes,
    shard_plan,
    state_table,
    stream_totals,
)
from singer_postgres.core.warehouse.system_tables import version_of
from tidemark.errors import UnreachableError
from tidemark.inspect.check.finding import Finding, Level
from tidemark.project import database_settings
from tidemark.project.connections import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tidemark.project.directory import Project

_OF_THE_LOADER = [
    each.TABLE
    for each in (
        state_table,
        run_history,
        rejects,
        schema_changes,
        reconcile_history,
        stream_totals,
        load_parts,
        shard_plan,
    )
]
# as the packages' on-run-start hooks have them
_OF_DBT = re.compile(r"refuse_newer_tables\((\{.*?\})\)")
_TABLES = """
    select nspname::text, relname::text, obj_description(pg_class.oid, 'pg_class')
    from pg_catalog.pg_class inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
    where relname = any(%s) and relkind in ('r', 'p') order by 1, 2
"""


def known(project: Project) -> dict[str, tuple[int, str]]:
    """Return the version of each table that this release writes, and what migrates it."""
    found = {table.name: (len(table.steps), "load") for table in _OF_THE_LOADER}
    for path in sorted(project.root.glob("transform/packages/*/dbt_project.yml")):
        for versions in _OF_DBT.findall(path.read_text(encoding="utf-8")):
            found |= {name: (int(version), "build") for name, version in ast.literal_eval(versions).items()}
    return found


def findings(project: Project) -> Iterator[Finding]:
    """Yield a finding for each table of another version, or one that there is none.

    Raises:
        UsageError: a variable's value can't be used.
    """
    versions = known(project)
    _, warehouse = database_settings.read(project)
    try:
        with connect(database_settings.admin(project, warehouse), any_pool=True) as connection:
            connection.prepare_threshold = None
            with connection.transaction():
                connection.execute("set transaction read only")
                tables = connection.execute(_TABLES, [list(versions)]).fetchall()
    except UnreachableError as error:
        yield Finding("warehouse", Level.warning, f"its tables were not read: {str(error).rstrip('.')}")
        return
    yield from compared(tables, versions)


def compared(tables: Iterable[tuple[Any, ...]], versions: dict[str, tuple[int, str]]) -> Iterator[Finding]:
    """Yield the findings about tables: a schema, a name and a comment each."""
    current = 0
    for schema, name, comment in tables:
        version, (wanted, by) = version_of(comment), versions[name]
        if version < wanted:
            what = f"{schema}.{name}: the next {by} migrates it from version {version} to {wanted}"
            yield Finding("warehouse", Level.note, what)
        elif version > wanted:
            what = f"{schema}.{name} has version {version}, of a newer release; this one knows {wanted}, and refuses it"
            yield Finding("warehouse", Level.error, what)
        else:
            current += 1
    if current:
        what = "1 table of Tidemark has" if current == 1 else f"{current} tables of Tidemark have"
        yield Finding("warehouse", Level.ok, f"{what} this release's version")
