"""`tidemark status`: all databases and whether they answer, and the latest run of each stream."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from rich.table import Table

from tidemark.errors import UnreachableError, UsageError
from tidemark.inspect import runs
from tidemark.inspect.tables import print_whole
from tidemark.local.postgres.server import Server
from tidemark.project import connections, database_settings, sources

if TYPE_CHECKING:
    from rich.console import Console

    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition


def show_servers(console: Console, project: Project, *, source: str | None = None, as_json: bool = False) -> None:
    """Print each database's address and whether it answers.

    Args:
        source: the name of the only source to show; None for all.
    """
    meant = _meant(project, source)
    several = len(sources.read_with_faults(project)[0]) > 1
    facts = [
        *(_source_facts(each, project) for each in meant),
        _facts(database_settings.warehouse(project), project),
    ]
    if as_json:
        for fact in facts:
            sys.stdout.write(json.dumps(fact) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("side", "address", "database", "server", "state"):
        table.add_column(heading, overflow="fold")
    for fact in facts:
        side = f"source {fact['source']}" if several and fact["source"] else fact["side"]
        table.add_row(str(side), *(str(fact[key]) for key in ("address", "database", "server", "state")))
    console.print(table)
    for fault in sources.read_with_faults(project)[1]:
        console.print(f"! {fault.what}", style="yellow", soft_wrap=True, markup=False)


def show_runs(console: Console, project: Project, *, source: str | None = None, as_json: bool = False) -> None:
    """Print the latest run of each stream from the history, if the warehouse answers."""
    meant = _meant(project, source)
    try:
        with connections.connect(database_settings.warehouse(project)) as connection:
            found = [run for each in meant for run in runs.latest(connection, each)]
    except (UnreachableError, UsageError):
        # show_servers has already said so
        return
    if as_json:
        for run in found:
            sys.stdout.write(json.dumps(run.as_dict()) + "\n")
    elif found:
        console.print()
        several = len(sources.read_with_faults(project)[0]) > 1
        print_whole(console, runs.table(found, several=several))


def _meant(project: Project, source: str | None) -> list[SourceDefinition]:
    """Return the named source, or all, also those that are given up or whose definition has a mistake."""
    return [sources.find(project, source)] if source else sources.read_with_faults(project)[0]


def _source_facts(definition: SourceDefinition, project: Project) -> dict[str, object]:
    try:
        facts = _facts(database_settings.source(project, definition), project)
    except UsageError as error:
        facts = {"side": "source", "address": "", "database": "", "server": "yours", "state": str(error)}
    if definition.retired:
        facts["state"] = f"retired {definition.retired}"
    return {**facts, "source": definition.name}


def _facts(side: DatabaseSettings, project: Project) -> dict[str, object]:
    running = Server(side, project).running() if side.embedded else None
    try:
        with connections.connect(side) as connection:
            version = connection.info.parameter_status("server_version") or "?"
        state = f"up, PostgreSQL {version.split(' ')[0]}"
    except (UnreachableError, UsageError) as error:
        state = "down" if side.embedded and running is None else str(error)
    return {
        "side": side.side,
        "source": None,
        "address": f"{side.address}:{side.port}",
        "database": side.database,
        "server": (f"embedded, pid {running.pid}" if running else "embedded") if side.embedded else "yours",
        "state": state,
    }
