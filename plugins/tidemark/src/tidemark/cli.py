"""The command line. Each command does one thing through the modules beside this one."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tidemark import __doc__ as _about
from tidemark import airflow, connections, databases, demo, settings
from tidemark import status as status_
from tidemark.backup import clients
from tidemark.backup import command as backups
from tidemark.errors import Interruption, TidemarkError, UsageError
from tidemark.locks import hold
from tidemark.pipeline import commands
from tidemark.postgres import fleet
from tidemark.postgres.server import Server
from tidemark.project import Project
from tidemark.state.command import state_app

if TYPE_CHECKING:
    from tidemark.settings import Side

app = typer.Typer(help=_about, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
demo_app = typer.Typer(help="The demo shop: fill it, and make traffic in it.", no_args_is_help=True)
app.add_typer(demo_app, name="demo")
airflow_app = typer.Typer(help="Airflow on this machine, which runs the schedules.", no_args_is_help=True)
app.add_typer(airflow_app, name="airflow")
app.add_typer(state_app, name="state")
app.add_typer(backups.backup_app, name="backup")
console = Console(highlight=False)


class SideOption(StrEnum):
    """Which database."""

    source = "source"
    warehouse = "warehouse"


SideArgument = Annotated[SideOption, typer.Argument(help="Which database.")]


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: FBT002
) -> None:
    """Take what holds for every command. `--debug` is looked at by entry.main, which also sees errors of typer."""


@app.command()
def up() -> None:
    """Start the embedded servers. A side whose HOST variable is set is left alone."""
    project = Project.find()
    databases.bring_up(project)
    status_.show_servers(console, project)


@app.command()
def down() -> None:
    """Stop the embedded servers. Their data stays."""
    project = Project.find()
    airflow.refuse_running(project)
    with hold(project.pipeline_lock, doing="running the pipeline"):
        stopped = fleet.stop(project, settings.all_sides(project))
    console.print(f"Stopped: {', '.join(side.side for side in stopped)}." if stopped else "No server was running.")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a database and a stream.")] = False,  # noqa: FBT002
) -> None:
    """Show both databases and whether they answer, and the latest run of each stream."""
    project = Project.find()
    status_.show_servers(console, project, as_json=as_json)
    status_.show_runs(console, project, as_json=as_json)


@app.command()
def dsn(side: SideArgument) -> None:
    """Print a database's libpq URL, its password included."""
    # not through rich, which would wrap it
    sys.stdout.write(connections.url(_side(side)) + "\n")


@app.command()
def roles(side: SideArgument) -> None:
    """Print the SQL of a database's roles, to be run in one of your own; `tidemark up` gives them to its servers."""
    from tidemark.roles import statements  # noqa: PLC0415

    sys.stdout.write(statements(side.value))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(side: SideArgument, context: typer.Context) -> None:
    """Open psql on a database; what follows is handed to psql, as in `tidemark psql warehouse -c "select 1"`."""
    chosen = _side(side)
    program = clients.psql(Project.find(), chosen)
    # not in the arguments, which all users of the machine can read
    password = {"PGPASSWORD": chosen.password.get_secret_value()} if chosen.password else {}
    # psql takes our place: its exit status, its terminal
    os.execve(  # noqa: S606
        program, [program, connections.url(chosen, with_password=False), *context.args], {**os.environ, **password}
    )


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    """Delete the embedded servers with all their data, and the pipeline's state with them."""
    from tidemark.state import meltano as state  # noqa: PLC0415

    project = Project.find()
    airflow.refuse_running(project)
    sides = settings.all_sides(project)
    doomed = [server for side in sides if side.embedded and (server := Server(side, project)).exists()]
    if not doomed:
        console.print("There is no embedded server; nothing to delete.")
        return
    for server in doomed:
        console.print(f"Will delete the {server.side.side} server's data: {server.directory}", soft_wrap=True)
    console.print("Will clear the state of every pipeline of this project, so that each loads everything next.")
    if not yes and not _confirmed():
        console.print("Nothing was deleted.")
        return
    with hold(project.pipeline_lock, doing="running the pipeline"):
        # state first: state without data skips rows, data without state is only read again
        cleared = state.clear_all(project)
        fleet.delete(project, sides)
    console.print(f"Deleted. State cleared: {', '.join(cleared) or 'there was none'}.", soft_wrap=True)


@app.command()
def pipeline(
    scale: Annotated[
        float | None,
        typer.Option(min=0.0001, help="Scale of the demo shop, if it has yet to be loaded [default: 0.01]."),
    ] = None,
) -> None:
    """Run the whole job: servers, demo shop, extract, load, models, tests; then say what happened."""
    from tidemark.pipeline.run import run  # noqa: PLC0415

    run(Project.find(), console, scale=scale)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def meltano(context: typer.Context) -> None:
    """Run Meltano's own command line, which then writes below TIDEMARK_WORK_DIR as well."""
    project = Project.find()
    os.chdir(project.root)
    os.execv(project.meltano, [str(project.meltano), *context.args])  # noqa: S606


app.command()(commands.run)
app.command()(commands.backfill)
app.command()(backups.restore)


@app.command()
def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """List what either database lacks for a run, with the SQL that fixes it; change nothing."""
    from tidemark.check import show  # noqa: PLC0415
    from tidemark.check.finding import Level  # noqa: PLC0415
    from tidemark.check.run import check as run  # noqa: PLC0415

    findings = run(Project.find())
    if as_json:
        sys.stdout.write(show.as_json(findings) + "\n")
    else:
        show.show(console, findings)
    if errors := sum(finding.level is Level.error for finding in findings):
        what = "An error" if errors == 1 else f"{errors} errors"
        raise TidemarkError(f"{what} above would stop or spoil a run; mend that, then run `tidemark check` again.")


@app.command()
def reconcile(
    stream: Annotated[
        list[str] | None, typer.Argument(help="Such as public-orders; all selected ones by default.")
    ] = None,
    repair: Annotated[  # noqa: FBT002
        bool, typer.Option("--repair", help="Bring in what is missing or different, mark as deleted what is gone.")
    ] = False,
    since: Annotated[str | None, typer.Option(help="Compare only rows whose replication key is this or later.")] = None,
    allow_deletes: Annotated[
        str, typer.Option(metavar="PERCENT", help="How much of a stream a repair may mark as deleted.")
    ] = "5%",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """Compare source and warehouse row by row, and say which rows differ; with --repair, make them equal."""
    from tidemark.reconcile import show  # noqa: PLC0415
    from tidemark.reconcile.run import Options, names  # noqa: PLC0415
    from tidemark.reconcile.run import reconcile as run  # noqa: PLC0415

    options = Options(tuple(stream or ()), repair, since, _percent(allow_deletes))
    with console.status("Comparing …") as status:
        results = run(
            Project.find(),
            options,
            began=lambda name: status.update(f"Comparing {name} …"),
            warn=lambda text: typer.echo(f"warning: {text}", err=True),
        )
    if as_json:
        sys.stdout.write(show.as_json(results) + "\n")
    else:
        show.show(console, results)
    if failed := [result.stream for result in results if result.error]:
        raise TidemarkError(f"{', '.join(failed)} could not be {'repaired' if repair else 'compared'}; see above.")
    if (different := names(results)) and repair:
        raise TidemarkError(f"{different} could not be repaired; see above.")
    if different:
        raise TidemarkError(f"Source and warehouse differ; mend it with `tidemark reconcile --repair {different}`.")


@app.command()
def trace(
    stream: Annotated[str, typer.Argument(help="Such as public-orders.")],
    key: Annotated[list[str], typer.Argument(help="The row's key; a value for each of its columns.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print whole rows as a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """Follow one row: source, raw table and the run that loaded it, and the models below."""
    from tidemark import trace as tracing  # noqa: PLC0415

    places = tracing.trace(Project.find(), stream, key)
    if as_json:
        sys.stdout.write(tracing.as_json(places) + "\n")
    else:
        tracing.show(console, places)


def _percent(text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1
    if not 0 <= percent <= 100:  # noqa: PLR2004 - percent
        raise UsageError(f"--allow-deletes is {text!r}; write a percentage from 0 to 100, such as 10%.")
    return percent


@demo_app.command("load")
def demo_load(
    scale: Annotated[float, typer.Option(min=0.0001, help="1 means 100,000 customers and 500,000 orders.")] = 0.01,
    as_of: Annotated[
        datetime | None, typer.Option(help="End of the three years of history, UTC [default: today's midnight].")
    ] = None,
) -> None:
    """Fill the source with the demo shop: the same rows each time for the same scale and end."""
    project = Project.find()
    source, _ = databases.bring_up(project)
    with console.status(f"Loading the demo shop at scale {scale:g} …"):
        as_of = as_of and as_of.replace(tzinfo=as_of.tzinfo or UTC)
        did = demo.load(project, source, scale=scale, as_of=as_of)
    console.print(f"{'Loaded' if did else 'Found'} the demo shop at scale {scale:g} in the {source}.", soft_wrap=True)


@demo_app.command("change")
def demo_change(
    rows: Annotated[int, typer.Option(min=1, help="About how many rows to change.")] = 200,
    seed: Annotated[int | None, typer.Option(help="Makes the same traffic again in the same shop.")] = None,
) -> None:
    """Make a day's traffic: orders, status moves, new prices and addresses, a few deletes."""
    project = Project.find()
    source, _ = databases.bring_up(project)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("table")
    table.add_column("change")
    table.add_column("rows", justify="right")
    for name, what, count in demo.change(project, source, rows=rows, seed=seed):
        table.add_row(name, what, f"{count:,}")
    console.print(table)


@airflow_app.command("up")
def airflow_up() -> None:
    """Run Airflow until Ctrl-C: its metadata's server, API server, scheduler, DAG processor and triggerer."""
    with suppress(Interruption):
        # here, Ctrl-C is how the command ends well
        raise typer.Exit(airflow.up(Project.find()))


@airflow_app.command("down")
def airflow_down() -> None:
    """End it from elsewhere; its data stays."""
    console.print("Stopped." if airflow.down(Project.find()) else "Airflow was not running.")


@app.command()
def schedules() -> None:
    """Print Meltano's schedules as Airflow's DAGs are made from them; `make schedules` keeps them in orchestrate/."""
    from tidemark.schedules import export  # noqa: PLC0415

    sys.stdout.write(export(Project.find()))


@app.command()
def docs(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = settings.LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port there.")] = 8081,
) -> None:
    """Build the models' documentation and serve it until Ctrl-C or SIGTERM."""
    from tidemark import documentation  # noqa: PLC0415

    project = Project.find()
    databases.bring_up_warehouse(project)
    with console.status("Building the documentation …"):
        directory = documentation.build(project)
    with documentation.serving(directory, host, port) as serve:
        address = f"[{host}]" if ":" in host else host
        console.print(f"The documentation is on http://{address}:{port}; Ctrl-C ends this.")
        # here, Ctrl-C is how the command ends well
        with suppress(Interruption):
            serve()


def _side(option: SideOption) -> Side:
    project = Project.find()
    source, warehouse = settings.read(project)
    return settings.admin(project, source if option is SideOption.source else warehouse)


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("There is no terminal to ask on; to delete all the same: `.venv/bin/tidemark reset --yes`.")
    return typer.confirm("Delete?")
