"""`tidemark status`: all databases and whether they answer, and the latest run of each stream."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.table import Table

from tidemark.errors import UnreachableError, UsageError
from tidemark.inspect import log_status, runs
from tidemark.inspect.log_status import LogState
from tidemark.inspect.tables import print_whole
from tidemark.local.postgres.server import Server
from tidemark.project import connections, database_settings, sources

if TYPE_CHECKING:
    from rich.console import Console

    from tidemark.inspect.log_status import LogStatus
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
    """Print how far the logs of LOG_BASED streams are loaded, and the latest run of each stream from the history.

    Nothing is printed if the warehouse does not answer.
    """
    meant = _meant(project, source)
    try:
        logs = [status for each in meant if not each.retired for status in log_status.of_source(project, each)]
        with connections.connect(database_settings.warehouse(project)) as connection:
            found = [run for each in meant for run in runs.latest(connection, each)]
    except (UnreachableError, UsageError):
        # show_servers has already said so
        return
    # a run may follow the log for hours, and its stream is as fresh as its slot
    ages = {
        (status.source, each.stream): timedelta(seconds=status.lag_seconds)
        for status in logs
        if status.lag_seconds is not None
        for each in status.streams
        if each.state in log_status.FRESH
    }
    found = [replace(run, age=ages.get((run.source, run.stream), run.age)) for run in found]
    if as_json:
        for facts in (*(status.as_dict() for status in logs), *(run.as_dict() for run in found)):
            sys.stdout.write(json.dumps(facts) + "\n")
        return
    if logs:
        console.print()
        print_whole(console, _log_table(logs))
        for status in logs:
            if status.fault:
                console.print(f"! {status.source}: {status.fault}", style="yellow", soft_wrap=True, markup=False)
            for stream in status.streams:
                if stream.why and stream.why != status.fault:
                    name = f"{status.source}/{stream.stream}"
                    console.print(f"! {name} {stream.state.value}: {stream.why}", style="yellow", soft_wrap=True)
    if found:
        console.print()
        several = len(sources.read_with_faults(project)[0]) > 1
        print_whole(console, runs.table(found, several=several))


def _log_table(logs: list[LogStatus]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("log of", "slot", "position", "behind", *(state.value for state in LogState)):
        table.add_column(heading, no_wrap=True)
    for status in logs:
        counts = Counter(stream.state for stream in status.streams)
        table.add_row(
            status.source, status.slot, status.position, status.lag, *(str(counts[each]) for each in LogState)
        )
    return table


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
