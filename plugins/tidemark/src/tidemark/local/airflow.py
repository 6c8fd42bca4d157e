"""Airflow on this machine: its database server, its secrets, and the processes that tidemark-airflow supervises."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from tidemark.errors import TidemarkError, UsageError
from tidemark.local import databases, secrets_file
from tidemark.local.postgres import fleet
from tidemark.project import database_settings, variables
from tidemark.project.file_locks import hold, holder, share

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.project.database_settings import Warehouse
    from tidemark.project.directory import Project

# components get 30 s to end, and their child processes some more
_STOP_S = 60
_METADATA = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


def home(project: Project) -> Path:
    """Return Airflow's own directory."""
    return project.state_dir / "airflow"


def running(project: Project) -> int | None:
    """Return the process id of this project's Airflow, if it runs."""
    return holder(_lock(project))


def refuse_running(project: Project) -> None:
    """Raise if Airflow runs: the caller is about to stop its databases.

    Raises:
        UsageError: Airflow runs.
    """
    if pid := running(project):
        raise UsageError(f"Airflow is running (pid {pid}) and needs its databases; run `tidemark airflow down` first.")


def up(project: Project) -> int:
    """Start everything that Airflow needs, run Airflow until it or this process is ended, and return its status.

    The servers of source and warehouse keep running, as after any command. The server of Airflow's metadata is stopped.

    Raises:
        BusyError: Airflow runs already.
        UsageError, TidemarkError: Airflow isn't installed, or a server can't be started.
    """
    program = project.plugins / "utilities" / "airflow" / "venv" / "bin" / "tidemark-airflow"
    if not program.exists():
        raise TidemarkError("Airflow is not installed here; `make airflow` installs and starts it.")
    with hold(_lock(project), doing="running Airflow") as lock:
        # start the servers here: a server that a task started would be a child process of Airflow
        _, warehouse = databases.bring_up(project)
        secrets_file.ensure_airflow(project)
        own = variables.read(project).get(_METADATA)
        if not own:
            databases.bring_up_airflow(project)
        child = subprocess.Popen(
            [program, "serve"],
            env={**os.environ, **_way_to(warehouse), "MELTANO_PROJECT_ROOT": str(project.root)},
            stdin=subprocess.DEVNULL,
            # a terminal's Ctrl-C goes to this process, which passes it on once
            start_new_session=True,
            pass_fds=[lock],
        )
        share(lock, child.pid)
        try:
            # for as long as Airflow runs
            return child.wait()
        finally:
            child.terminate()
            # it kills components that don't end, so that none survives this process
            child.wait()
            if not own:
                fleet.stop(project, [database_settings.airflow_database(project)])


def _way_to(warehouse: Warehouse) -> dict[str, str]:
    """Return the address of the user's own warehouse for Airflow's page of streams, without a login."""
    if warehouse.embedded:
        return {}
    return {name: value for name, value in warehouse.variables().items() if not name.endswith(("_USER", "_PASSWORD"))}


def down(project: Project) -> bool:
    """Stop Airflow, and return whether it ran.

    Raises:
        TidemarkError: Airflow doesn't end.
    """
    pid = running(project)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while running(project):
            if time.monotonic() > deadline:
                raise TidemarkError(f"Airflow (pid {pid}) did not end in {_STOP_S} s; see logs/airflow/.")
            time.sleep(0.1)
    return pid is not None


def _lock(project: Project) -> Path:
    return home(project) / "airflow.lock"
