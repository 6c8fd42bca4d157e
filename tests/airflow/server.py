"""Airflow as `make airflow` runs it, for a separate project; driven by REST, because its command line takes seconds.

Its tasks have their programs forked, as programs.py does it for all tests.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import requests
from dotenv import dotenv_values

from tests import programs
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout

READY_S = 120
RUN_S = 400
_ENDED = {"success", "failed"}


def until(found: Callable[[], Any], what: str, *, seconds: float = RUN_S) -> Any:
    """Call `found` until its result is true, and return that result."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.3)
    return answer


@dataclass
class Airflow:
    """A running Airflow."""

    checkout: Checkout
    url: str
    process: subprocess.Popen[str] | None = None
    printed: deque[str] = field(default_factory=deque)
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def password(self) -> str:
        return dotenv_values(self.checkout.root / ".env")["AIRFLOW_ADMIN_PASSWORD"] or ""

    def start(self) -> None:
        """Start it, wait until it says that it is ready, and log in."""
        self.process = self.checkout.start("airflow", "up")
        threading.Thread(target=self._read, daemon=True).start()
        until(self._ready, "ready", seconds=READY_S)
        self.log_in()
        # now, so that Airflow itself is started as users start it
        _own_programs(self.checkout.root)
        self._fork_tasks()

    def _fork_tasks(self) -> None:
        if not programs.AS_INSTALLED:
            new = self._new_program
            new.write_text(programs.script(programs.TIDEMARK))
            new.chmod(0o755)
            new.rename(new.with_suffix(""))

    @contextlib.contextmanager
    def tasks_as_installed(self) -> Iterator[None]:
        """Let tasks start programs as users do, for tests of what ends with a task."""
        new = self._new_program
        new.symlink_to(programs.TIDEMARK)
        new.rename(new.with_suffix(""))
        yield
        self._fork_tasks()

    @property
    def _new_program(self) -> Path:
        """The path at which to prepare what then replaces the project's `tidemark`."""
        return self.checkout.root / ".venv" / "bin" / "tidemark.new"

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=90)

    def _read(self) -> None:
        assert self.process
        assert self.process.stdout
        with self.process.stdout as lines:
            self.printed.extend(lines)

    def _ready(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.said
        return "Airflow is ready" in self.said

    @property
    def said(self) -> str:
        return "".join([*self.printed])

    def log_in(self) -> None:
        self.session.trust_env = False
        login = {"username": "admin", "password": self.password}
        token = self.session.post(f"{self.url}/auth/token", json=login, timeout=30).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **params: Any) -> Any:
        return self._call("GET", path, params=params)

    def _call(self, method: str, path: str, **more: Any) -> Any:
        answer = self.session.request(method, f"{self.url}/api/v2{path}", timeout=30, **more)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def unpause(self, dag: str) -> None:
        self._call("PATCH", f"/dags/{dag}", json={"is_paused": False})

    def trigger(self, dag: str, **params: Any) -> str:
        """Start a run by hand; return its id."""
        started = self._call("POST", f"/dags/{dag}/dagRuns", json={"logical_date": None, "conf": params})
        return str(started["dag_run_id"])

    def wait(self, dag: str, run: str) -> str:
        """Wait for a run to end; return its state."""

        def ended() -> str | None:
            # Airflow does not answer for a while after a restart, or while its first task makes it import more
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                state = self.get(f"/dags/{dag}/dagRuns/{run}")["state"]
                return state if state in _ENDED else None
            return None

        return str(until(ended, f"{dag} {run} ended"))

    def clear_failed(self, dag: str, run: str) -> None:
        """Have the failed tasks of a run, and those that they kept from running, run again."""
        cleared = {"dag_run_id": run, "only_failed": True, "dry_run": False}
        self._call("POST", f"/dags/{dag}/clearTaskInstances", json=cleared)

    def run(self, dag: str, **params: Any) -> str:
        """Run a DAG that must succeed; return the run's id."""
        run = self.trigger(dag, **params)
        assert self.wait(dag, run) == "success", self.logs(dag, run)
        return run

    def tasks(self, dag: str, run: str) -> dict[str, tuple[str, int]]:
        """Return each task's state and its number of tries."""
        found = self.get(f"/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: (task["state"], task["try_number"]) for task in found}

    def log(self, dag: str, run: str, task: str, attempt: int = 1) -> list[tuple[str, str]]:
        """Return the lines of a task's log, each as its level and text."""
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{attempt}"
        answer = self.session.get(f"{self.url}/api/v2{path}", headers={"Accept": "application/json"}, timeout=30).json()
        return [(line.get("level", ""), line["event"]) for line in answer["content"]]

    def logs(self, dag: str, run: str) -> str:
        return "\n".join(
            f"{task} {attempt}: {level} {text}"
            for task, (_, tries) in self.tasks(dag, run).items()
            for attempt in range(1, tries + 1)
            for level, text in self.log(dag, run, task, attempt)
        )

    def events(self, asset: str) -> list[dict[str, Any]]:
        """Return the events of an asset, oldest first."""
        found = self.get("/assets/events", order_by="timestamp")["asset_events"]
        return [event for event in found if event["name"] == asset]

    def component(self, name: str) -> psutil.Process:
        """Return the process of one of Airflow's components."""
        assert self.process
        pid = self.process.pid

        def found() -> psutil.Process | None:
            for each in psutil.Process(pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if name in each.cmdline() and any(word.endswith("/airflow") for word in each.cmdline()):
                        return each
            return None

        return until(found, name, seconds=30)

    def processes(self) -> list[str]:
        """Return the command lines of all of this project's processes except its database servers."""
        found = []
        for each in psutil.process_iter(["cmdline", "name"]):
            with contextlib.suppress(psutil.Error):
                if each.cwd().startswith(str(self.checkout.root)) and not each.info["name"].startswith("postgres"):
                    found.append(" ".join(each.info["cmdline"] or [each.info["name"]]))
        return found


def _own_programs(root: Path) -> None:
    """Give the project its own directory of programs, in which one can be replaced."""
    own, shared = root / ".venv", REPOSITORY / ".venv"
    own.unlink()
    (own / "bin").mkdir(parents=True)
    for path in (*(shared / "bin").iterdir(), *(path for path in shared.iterdir() if path.name != "bin")):
        (own / path.relative_to(shared)).symlink_to(path)
