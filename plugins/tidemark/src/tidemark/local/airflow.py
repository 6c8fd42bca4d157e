"""Airflow on this machine: its metadata's server, its secrets, and the processes that tidemark-airflow looks after."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from tidemark.errors import TidemarkError, UsageError
from tidemark.local import databases, secrets_file
from tidemark.local.postgres import fleet
from tidemark.project import settings, variables
from tidemark.project.file_locks import hold, holder, share

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.settings import Warehouse

# components get 30 s to end, and what they leave behind some more
_STOP_S = 60
_METADATA = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


def home(project: Project) -> Path:
    """Return Airflow's own directory."""
    return project.state_dir / "airflow"


def running(project: Project) -> int | None:
    """Return the process that runs Airflow for this project, if one does."""
    return holder(_lock(project))


def refuse_running(project: Project) -> None:
    """Stop before something that would take Airflow's databases away under it.

    Raises:
        UsageError: it runs.
    """
    if pid := running(project):
        raise UsageError(f"Airflow is running (pid {pid}) and needs its databases; run `tidemark airflow down` first.")


def up(project: Project) -> int:
    """Start all that Airflow needs and run it until it ends, or this process is told to; return its status.

    The servers of source and warehouse run on, as after any command; that of Airflow's metadata ends with it.

    Raises:
        BusyError: it runs already.
        UsageError, TidemarkError: it isn't installed, or a server can't be started.
    """
    program = project.plugins / "utilities" / "airflow" / "venv" / "bin" / "tidemark-airflow"
    if not program.exists():
        raise TidemarkError("Airflow is not installed here; `make airflow` installs and starts it.")
    with hold(_lock(project), doing="running Airflow") as lock:
        # here, as what a task would start were a child of Airflow's
        _, warehouse = databases.bring_up(project)
        secrets_file.ensure_airflow(project)
        own = variables.read(project).get(_METADATA)
        if not own:
            databases.bring_up_airflow(project)
        child = subprocess.Popen(
            [program, "serve"],
            env={**os.environ, **_way_to(warehouse), "MELTANO_PROJECT_ROOT": str(project.root)},
            stdin=subprocess.DEVNULL,
            # a terminal's Ctrl-C comes to us, and goes on to it once
            start_new_session=True,
            pass_fds=[lock],
        )
        share(lock, child.pid)
        try:
            # as long as Airflow is to run
            return child.wait()
        finally:
            child.terminate()
            # it kills in the end what does not end, and its components may not outlive us
            child.wait()
            if not own:
                fleet.stop(project, [settings.airflow_database(project)])


def _way_to(warehouse: Warehouse) -> dict[str, str]:
    """Return what Airflow's page of streams needs of a user's own warehouse, which YAML may name; no login in it."""
    if warehouse.embedded:
        return {}
    return {name: value for name, value in warehouse.variables().items() if not name.endswith(("_USER", "_PASSWORD"))}


def down(project: Project) -> bool:
    """End Airflow; return whether it ran.

    Raises:
        TidemarkError: it doesn't end.
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
