"""The commands `tidemark source …`."""

from __future__ import annotations

import getpass
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tidemark.errors import UsageError
from tidemark.project import database_settings, schedules, sources, variables
from tidemark.project.directory import Project
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from tidemark.project.sources import SourceDefinition

source_app = typer.Typer(help="Add, list and retire source databases.", no_args_is_help=True)
console = Console(highlight=False)


@source_app.command("add")
def source_add(  # noqa: PLR0913 - the command's options
    name: Annotated[str, typer.Argument(help="Its name: that of its tap without `tap-`.")],
    *,
    host: Annotated[str | None, typer.Option(help="The address of its server.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port; 5432 by default.")] = None,
    user: Annotated[str | None, typer.Option(help="The role that reads it; tidemark_reader by default.")] = None,
    database: Annotated[str | None, typer.Option(help="The database.")] = None,
    schema: Annotated[str | None, typer.Option(help="Its schema in the warehouse; raw_NAME by default.")] = None,
) -> None:
    """Write a source's tap and target, put its connection into .env, and add it to the jobs that load everything.

    The password is asked for on a terminal, or taken from TAP_NAME_PASSWORD.
    """
    from tidemark.project import new_source  # noqa: PLC0415

    project = Project.find()
    given = {"HOST": host, "PORT": port and str(port), "USER": user, "DATABASE": database}
    connection = {end: value for end, value in given.items() if value}
    new = new_source.NewSource(name, schema or new_source.raw_schema(name), connection)
    new_source.refuse(project, new)
    if connection and (password := ask_password(project, f"{new.prefix}_PASSWORD")):
        connection["PASSWORD"] = password
    for change in new_source.add(project, new):
        _say(change)
    if schedules.refresh(project):
        _say(f"{schedules.FILE}: written, so Airflow loads it too")
    _say(f"Source {name} loads into schema {new.schema}. Next:")
    if missing := new_source.missing_variables(project, new):
        _say(f"  set {' and '.join(missing)} in .env")
    _say(f"  .venv/bin/tidemark onboard {name}     # proposes how to read its tables, writes that, loads and tests it")
    _say(f"or name its streams yourself under `select` in extract/{name}.meltano.yml, then `make pipeline`")


@source_app.command("list")
def source_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """List the sources, with their plugins, databases and schemas. This connects to none."""
    project = Project.find()
    found, faults = sources.read_with_faults(project)
    listed = [_listed(project, source) for source in found]
    if as_json:
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("source", "tap", "target", "schema", "database", "state"):
        table.add_column(heading, no_wrap=heading != "state", overflow="fold")
    for each in listed:
        table.add_row(*(str(each[key] or "") for key in ("source", "tap", "target", "schema", "database", "state")))
    console.print(table)
    for fault in faults:
        console.print(f"! {fault.what}", style="yellow", soft_wrap=True, markup=False)


@source_app.command("retire")
def source_retire(
    name: Annotated[str, typer.Argument(help="The source.")],
    stream: Annotated[
        list[str] | None, typer.Argument(help="Streams such as public-orders; by default, the whole source.")
    ] = None,
    drop_tables: Annotated[  # noqa: FBT002
        bool, typer.Option("--drop-tables", help="Drop its tables in the warehouse, and clear its state.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before tables are dropped.")] = False,  # noqa: FBT002
) -> None:
    """Give up a source, or some of its streams: no job reads them. Tables and state stay, unless you drop them."""
    from tidemark.inspect import slots  # noqa: PLC0415

    project = Project.find()
    source = sources.find(project, name)
    # a pair reads the database of its source
    doomed = [source] if stream else sources.with_pairs(project, source)[::-1]
    with hold(project.pipeline_lock, doing="running the pipeline"):
        for each in doomed:
            if not _retired(project, each, stream or [], drop_tables=drop_tables, yes=yes):
                _say("Nothing was changed.")
                return
    if schedules.refresh(project):
        _say(f"{schedules.FILE}: written, so Airflow knows.")
    for each in [] if stream else doomed:
        if slot := slots.left_by(project, each):
            _say(
                f"The source keeps its WAL for the slot {slot.slot}, which nobody reads now: "
                f"`tidemark slots drop {slot.slot} --source {each.name}`."
            )


def _retired(project: Project, source: SourceDefinition, streams: list[str], *, drop_tables: bool, yes: bool) -> bool:
    """Retire a source or some of its streams, and say so. Return false if the user does not want to drop tables."""
    from tidemark.inspect import retire  # noqa: PLC0415

    doomed = retire.tables(project, source, streams) if drop_tables else []
    if drop_tables:
        _say(f"Will drop these tables of schema {source.raw_schema}: {', '.join(doomed) or 'none'}.")
        _say(f"Will clear the state of {' and '.join(streams) or f'source {source.name}'}.")
        if not yes and not _confirmed(source.name):
            return False
    changes = list(retire.retire(project, source, streams))
    for change in changes:
        _say(change)
    if drop_tables:
        retire.drop(project, source, doomed, streams)
        gone = not streams and retire.drop_schema(project, source)
        _say(f"{len(doomed)} tables were dropped{f', and schema {source.raw_schema}' if gone else ''}.")
    elif changes:
        _say(f"The tables in schema {source.raw_schema} stay; --drop-tables drops them.")
    else:
        _say(f"Source {source.name} was retired on {source.retired} already; --drop-tables drops its tables.")
    return True


def _listed(project: Project, source: SourceDefinition) -> dict[str, object]:
    try:
        side = database_settings.source(project, source)
        database, state = f"{side.address}:{side.port}/{side.database}", "in use"
    except UsageError as error:
        database, state = None, str(error)
    return {
        "source": source.name,
        "tap": source.tap,
        "target": source.target,
        "schema": source.raw_schema,
        "database": database,
        "retired": source.retired,
        "state": f"retired {source.retired}" if source.retired else state,
    }


def ask_password(project: Project, variable: str) -> str | None:
    """Return a password that is set already, or else what the user types."""
    if there := variables.read(project).get(variable):
        return there
    return getpass.getpass(f"{variable} (empty for none): ") or None if sys.stdin.isatty() else None


def _confirmed(name: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            f"There is no terminal to ask on; `tidemark source retire {name} --drop-tables --yes` drops them."
        )
    return typer.confirm("Drop?")


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
