"""A real Prometheus and a real Alertmanager that watch a project, with a minute as a second.

The rules, the configuration and the script that prints Alertmanager's are the project's own. Only times change: how
often Prometheus looks, how long a condition must last, and over which range a query looks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import psutil
import pytest
import yaml

from tests.airflow.alerts import receiving
from tests.conftest import REPOSITORY
from tests.monitoring.prometheus import hash_as_usual
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.airflow.alerts import Receiver
    from tests.integration.checkout import Checkout

PROGRAMS = ("prometheus", "prometheus-alertmanager")
EXPORTER = "prometheus-postgres-exporter"
wanted = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason="needs Prometheus and Alertmanager (Debian: prometheus-alertmanager)"
)
_WAIT_S = 45
_LOOK_S = 0.2
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# no condition has to last longer than this many seconds
_LONGEST = 6


def _sooner(duration: str) -> str:
    """Return a duration of Prometheus with seconds for minutes."""
    seconds = int(duration[:-1]) * _UNITS[duration[-1]] / 60
    return f"{max(1, min(round(seconds), _LONGEST))}s"


def hurried(rules: dict[str, Any]) -> dict[str, Any]:
    """Return a file of rules with other times; expressions differ only in the ranges of their queries."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[(\d+[smhd])\]", lambda found: f"[{_sooner(found[1])}]", rule["expr"])
            for name in ("for", "keep_firing_for"):
                if name in rule:
                    rule[name] = _sooner(rule[name])
    return rules


class Message:
    """One message of Alertmanager: whether it says that alerts fire or have ended, of which kind, and its text."""

    def __init__(self, body: dict[str, Any]) -> None:
        (attachment,) = body["attachments"]
        state, _, self.about = str(attachment["title"]).partition(" ")
        self.resolved = state == "[RESOLVED]"
        self.alert = self.about.split()[0]
        self.text: str = attachment["text"]

    def __repr__(self) -> str:
        return f"{'RESOLVED ' if self.resolved else ''}{self.about}: {self.text}"


class Monitoring:
    """The programs that watch a project, and the messages that they sent."""

    def __init__(self, project: Checkout, directory: Path, receiver: Receiver) -> None:
        self.project = project
        self._directory = directory
        self._receiver = receiver
        self._messages: list[Message] = []
        self._processes: dict[str, subprocess.Popen[Any]] = {}
        self._ports = {name: free_port() for name in ("tidemark", "prometheus", "alertmanager", "source", "warehouse")}

    # --- programs

    def start(self) -> None:
        """Start everything, and wait until Prometheus has looked once at each target."""
        self._configure()
        self.start_exporter()
        for name in ("source", "warehouse"):
            hash_as_usual(self.project.tidemark("dsn", name).strip())
            self.start_database_exporter(name)
        home = self._directory
        self._run(
            "alertmanager",
            *("prometheus-alertmanager", f"--config.file={home}/alertmanager.yml", f"--storage.path={home}/silences"),
            *(f"--web.listen-address=127.0.0.1:{self._ports['alertmanager']}", "--cluster.listen-address="),
        )
        self._run(
            "prometheus",
            *("prometheus", f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/series"),
            f"--web.listen-address=127.0.0.1:{self._ports['prometheus']}",
        )
        wait_for(lambda: self.query("count(up) == count(up == 1) and on () tidemark_build_info"), "targets")

    def start_exporter(self) -> None:
        """Start `tidemark metrics`, and wait until it listens."""
        with (self._directory / "tidemark.log").open("ab") as log:
            self._processes["tidemark"] = subprocess.Popen(
                self.project.command("tidemark", "metrics", "--port", str(self._ports["tidemark"])),
                cwd=self.project.root,
                env=self.project.env,
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: _get(f"http://127.0.0.1:{self._ports['tidemark']}/metrics"), "tidemark metrics")

    def replace_exporter(self) -> None:
        """Start another exporter in the place of the first, which Prometheus never misses."""
        before = self._processes.pop("tidemark")
        self._ports["tidemark"] = free_port()
        self.start_exporter()
        changed = self._directory / "tidemark.yml"
        self._target(changed, "tidemark")
        changed.rename(self._directory / "targets" / "tidemark.yml")
        wait_for(lambda: self.query(f'up{{instance="127.0.0.1:{self._ports["tidemark"]}"}} == 1'), "the exporter")
        before.kill()
        before.wait()

    def start_database_exporter(self, side: str) -> None:
        """Start postgres_exporter for a side, if this machine has one."""
        if shutil.which(EXPORTER):
            address = f"{self.project.tidemark('dsn', side).strip()}?sslmode=disable"
            listen = f"--web.listen-address=127.0.0.1:{self._ports[side]}"
            self._run(side, EXPORTER, listen, env={**os.environ, "DATA_SOURCE_NAME": address})

    def kill(self, name: str) -> None:
        """Kill a program: `tidemark`, or the exporter of `source` or `warehouse`."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_server(self, side: str) -> None:
        """Kill a side's PostgreSQL at once."""
        (pid_file,) = (self.project.root / ".tidemark" / "postgres").glob(f"{side}*/data/postmaster.pid")
        server = psutil.Process(int(pid_file.read_text().split()[0]))
        server.send_signal(signal.SIGQUIT)
        wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, "the server's end")

    def stop(self) -> None:
        """Kill all programs: nobody needs their data."""
        for name in list(self._processes):
            self.kill(name)

    def _run(self, name: str, *command: str, env: dict[str, str] | None = None) -> None:
        with (self._directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=env)

    def _configure(self) -> None:
        monitoring = REPOSITORY / "monitoring"
        text = (monitoring / "prometheus" / "prometheus.yml").read_text()
        config = yaml.safe_load(re.sub(r"(?<=: )\d+s$", "1s", text, flags=re.MULTILINE))
        for job in config["scrape_configs"]:
            if job["job_name"] == "postgres":
                # it tries a server that is away several times before it answers
                job["scrape_interval"] = job["scrape_timeout"] = "5s"
        (self._directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        rules = self._directory / "rules"
        rules.mkdir()
        for path in (monitoring / "prometheus" / "rules").glob("*.yml"):
            (rules / path.name).write_text(yaml.safe_dump(hurried(yaml.safe_load(path.read_text()))))
        targets = self._directory / "targets"
        targets.mkdir()
        for name in ("tidemark", "prometheus", "alertmanager"):
            self._target(targets / f"{name}.yml", name)
        if shutil.which(EXPORTER):
            sides = {"source": {"database": "source", "source": "postgres"}, "warehouse": {"database": "warehouse"}}
            postgres = [{"targets": [f"127.0.0.1:{self._ports[side]}"], "labels": sides[side]} for side in sides]
            (targets / "postgres.yml").write_text(yaml.safe_dump(postgres))
        done = subprocess.run(
            [monitoring / "alertmanager" / "configure.sh"],
            env={
                **os.environ,
                "TIDEMARK_ALERTS_BY": "alertmanager",
                "TIDEMARK_ALERTS_WEBHOOK_URL": self._receiver.url,
                "TIDEMARK_ALERTS_RUNBOOK_URL": "https://example.com/runbook.md",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        hurry = re.sub(r"((?:group_wait|group_interval): )\w+", r"\g<1>1s", done.stdout)
        (self._directory / "alertmanager.yml").write_text(hurry)

    def _target(self, path: Path, name: str) -> None:
        path.write_text(yaml.safe_dump([{"targets": [f"127.0.0.1:{self._ports[name]}"]}]))

    # --- what they say

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of a query."""
        found = _get(f"http://127.0.0.1:{self._ports['prometheus']}/api/v1/query?query={quote(expression)}")
        samples: list[dict[str, Any]] = json.loads(found)["data"]["result"] if found else []
        return samples

    def firing(self, alert: str) -> bool:
        """Return whether Prometheus has the alert firing, whatever Alertmanager does with it."""
        return bool(self.query(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))

    def messages(self) -> list[Message]:
        """Return all messages so far."""
        self._messages += map(Message, self._receiver.take())
        return self._messages

    def forget(self) -> None:
        """Leave the messages so far out of what the next calls look at."""
        self.messages()
        self._messages = []

    def says(self, alert: str, *words: str, resolved: bool = False) -> Message:
        """Wait for a message about an alert with these words, and return it."""

        def found() -> Message | None:
            return next(
                (
                    message
                    for message in self.messages()
                    if (message.alert, message.resolved) == (alert, resolved)
                    and all(word in message.text for word in words)
                ),
                None,
            )

        return wait_for(found, lambda: f"{alert} {words} {resolved=}; came: {self.messages()}")

    def is_silent_about(self, alert: str) -> bool:
        """Return whether no message named the alert."""
        return not [message for message in self.messages() if message.alert == alert]


def wait_for(condition: Callable[[], Any], what: str | Callable[[], str]) -> Any:
    """Return the condition's value as soon as it is true."""
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(_LOOK_S)
    pytest.fail(f"did not come within {_WAIT_S} s: {what if isinstance(what, str) else what()}")


def _get(url: str) -> bytes:
    with suppress(URLError, OSError), urlopen(url, timeout=5) as response:  # noqa: S310
        content: bytes = response.read()
        return content
    return b""


@contextmanager
def watching(project: Checkout, directory: Path) -> Iterator[Monitoring]:
    """Watch a project."""
    with ExitStack() as stack:
        monitoring = Monitoring(project, directory, stack.enter_context(receiving()))
        stack.callback(monitoring.stop)
        monitoring.start()
        yield monitoring
