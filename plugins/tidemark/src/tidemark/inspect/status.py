"""`tidemark status`: both databases and whether they answer, and the latest run of each stream."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from rich.table import Table

from tidemark.errors import UnreachableError, UsageError
from tidemark.inspect import runs
from tidemark.inspect.tables import print_whole
from tidemark.local.postgres.server import Server
from tidemark.project import connections, database_settings

if TYPE_CHECKING:
    from rich.console import Console

    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project


def show_servers(console: Console, project: Project, *, as_json: bool = False) -> None:
    """Print each database's address and whether it answers."""
    facts = [_facts(side, project) for side in database_settings.read(project)]
    if as_json:
        for fact in facts:
            sys.stdout.write(json.dumps(fact) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("side", "address", "database", "server", "state"):
        table.add_column(heading, overflow="fold")
    for fact in facts:
        table.add_row(*(str(fact[key]) for key in ("side", "address", "database", "server", "state")))
    console.print(table)


def show_runs(console: Console, project: Project, *, as_json: bool) -> None:
    """Print the latest run of each stream from the history, if the warehouse answers."""
    _, warehouse = database_settings.read(project)
    try:
        with connections.connect(warehouse) as connection:
            found = runs.latest(connection, warehouse.default_target_schema)
    except (UnreachableError, UsageError):
        # show_servers has already said so
        return
    if as_json:
        for run in found:
            sys.stdout.write(json.dumps(run.as_dict()) + "\n")
    elif found:
        console.print()
        print_whole(console, runs.table(found))


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
        "address": f"{side.address}:{side.port}",
        "database": side.database,
        "server": (f"embedded, pid {running.pid}" if running else "embedded") if side.embedded else "yours",
        "state": state,
    }
