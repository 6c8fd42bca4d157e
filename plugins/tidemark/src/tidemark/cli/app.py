"""The command line, assembled from its groups."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tidemark import __doc__ as _about
from tidemark.cli import backup, docs, init, inspect, metrics, monitor, onboard, run, servers, upgrade
from tidemark.cli.airflow import airflow_app, schedules
from tidemark.cli.demo import demo_app
from tidemark.cli.logs import logs_app
from tidemark.cli.slots import slots_app
from tidemark.cli.source import source_app
from tidemark.cli.state import state_app

app = typer.Typer(help=_about, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(source_app, name="source")
app.add_typer(slots_app, name="slots")
app.add_typer(demo_app, name="demo")
app.add_typer(airflow_app, name="airflow")
app.add_typer(state_app, name="state")
app.add_typer(backup.backup_app, name="backup")
app.add_typer(logs_app, name="logs")
# further arguments of these commands go to the program that they run
_PASSED_ON: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.callback()
def main_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: FBT002
) -> None:
    """Take the options of all commands. `entry.main` reads `--debug`, because it also handles typer's errors."""


# in the order in which the help lists them
for _command, _settings in (
    (init.init, {}),
    (servers.up, {}),
    (servers.down, {}),
    (inspect.status, {}),
    (servers.dsn, {}),
    (servers.roles, {}),
    (servers.psql, _PASSED_ON),
    (servers.reset, {}),
    (run.pipeline, {}),
    (run.meltano, _PASSED_ON | {"help_option_names": []}),
    (run.run, {}),
    (run.follow, {}),
    (run.backfill, {}),
    (backup.restore, {}),
    (onboard.onboard, {}),
    (inspect.check, {}),
    (inspect.reconcile, {}),
    (inspect.trace, {}),
    (upgrade.upgrade, {}),
    (schedules, {}),
    (metrics.metrics, {}),
    (docs.docs, {}),
    (monitor.monitor, {}),
):
    app.command(context_settings=_settings)(_command)
