"""Runs all of Airflow on this machine: prepares its metadata, starts its four processes, and says where it is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tidemark_airflow import logins
from tidemark_airflow.alerts import settings
from tidemark_airflow.errors import UsageError
from tidemark_airflow.supervisor import Component, Supervisor

_BIN = Path(sys.executable).parent
# the API server reads task logs as files of this machine, so no component needs to serve them
_COMPONENTS = {
    "API server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "DAG processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
_HEALTH = ("metadatabase", "scheduler", "dag_processor", "triggerer")
_LOOK_EVERY_S = 0.5
_PATIENCE_S = 120


def serve() -> int:
    """Run Airflow until it is told to end; return the exit status.

    Raises:
        UsageError: it can't be started.
    """
    began = time.monotonic()
    home = Path(os.environ["AIRFLOW_HOME"])
    logs = Path(os.environ.get("TIDEMARK_WORK_DIR") or os.environ["MELTANO_PROJECT_ROOT"]) / "logs" / "airflow"
    for directory in (home, logs):
        directory.mkdir(parents=True, exist_ok=True)
    _refuse_bad_alerts()
    _refuse_taken_port()
    login = logins.note(os.environ)
    _say("Preparing Airflow's metadata …")
    _prepare(logs / "prepare.log")
    _say("Starting Airflow's API server, scheduler, DAG processor and triggerer …")
    components = [
        Component(name, [str(_BIN / "airflow"), *arguments], logs / f"{arguments[0]}.log")
        for name, arguments in _COMPONENTS.items()
    ]
    supervisor = Supervisor(components, _say)
    readiness, pools = _Readiness(began, login, logs), _Pools(logs / "pools.log", supervisor)

    def meanwhile() -> None:
        readiness()
        pools()

    status = supervisor.run(meanwhile=meanwhile)
    _say("Airflow has ended.")
    return status


class _Readiness:
    """Polls Airflow's health until all is healthy, and reports that once."""

    def __init__(self, began: float, login: str, logs: Path) -> None:
        self._began = began
        self._login = login
        self._logs = logs
        self._looked = 0.0
        self._done = False

    def __call__(self) -> None:
        now = time.monotonic()
        if self._done or now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        wanting = _wanting()
        if not wanting:
            _say(f"Airflow is ready after {now - self._began:.0f} s: {os.environ['AIRFLOW__API__BASE_URL']}")
            _say(f"  {self._login}")
            _say("To stop it: Ctrl-C here, or `make airflow-down` in another terminal.")
            self._done = True
        elif now - self._began > _PATIENCE_S:
            _say(f"Airflow is not ready after {_PATIENCE_S} s. Not healthy: {', '.join(wanting)}. See {self._logs}/.")
            self._done = True


class _Pools:
    """Creates the pools of sources that are added while Airflow runs: a task whose pool is missing waits for ever."""

    def __init__(self, log: Path, supervisor: Supervisor) -> None:
        self._log = log
        self._supervisor = supervisor
        self._schedules = Path(os.environ["MELTANO_PROJECT_ROOT"]) / "orchestrate" / "schedules.json"
        self._seen = self._changed()
        self._making: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        if self._making and (status := self._making.poll()) is not None:
            self._supervisor.helpers.discard(self._making.pid)
            self._making = None
            if status:
                _say(f"The pools of new sources can't be created; see {self._log}.")
        if not self._making and (changed := self._changed()) != self._seen:
            self._seen = changed
            with self._log.open("wb") as output:
                self._making = subprocess.Popen(
                    [_BIN / "tidemark-airflow", "source-pools"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            self._supervisor.helpers.add(self._making.pid)

    def _changed(self) -> float:
        try:
            return self._schedules.stat().st_mtime
        except OSError:
            return 0


def _wanting() -> list[str]:
    """Return the components that are not healthy yet."""
    url = f"{os.environ['AIRFLOW__API__BASE_URL']}/api/v2/monitor/health"
    try:
        health = httpx.get(url, timeout=2, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return ["API server"]
    return [name for name in _HEALTH if (health.get(name) or {}).get("status") != "healthy"]


def _refuse_bad_alerts() -> None:
    """Refuse to start with a misspelt setting, which would send alerts nowhere."""
    try:
        settings.check()
    except settings.SettingsError as error:
        raise UsageError(f"{error} Correct it in .env or the environment.") from None


def _refuse_taken_port() -> None:
    host, port = os.environ["AIRFLOW__API__HOST"], os.environ["AIRFLOW__API__PORT"]
    if not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004 - ports
        raise UsageError(f"AIRFLOW__API__PORT is {port!r}; write a port, such as 8080.")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise UsageError(
                f"Airflow can't listen on {host}:{port} ({error.strerror}); end the program that uses the port, or set "
                "another AIRFLOW__API__PORT in .env."
            ) from None


def _prepare(log: Path) -> None:
    with log.open("wb") as output:
        status = subprocess.call(
            [_BIN / "tidemark-airflow", "prepare"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if status:
        said = log.read_text(errors="replace").strip().splitlines()
        why = said[-1] if said else "it gave no reason"
        raise UsageError(f"Airflow's metadata can't be prepared: {why}; see {log}.")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
