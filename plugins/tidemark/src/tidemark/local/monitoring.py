"""Monitoring on this machine: the exporter of metrics and, where they are installed, Prometheus and Alertmanager.

Prometheus reads the project's own configuration from a copy with the ports that were asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemark.errors import TidemarkError, UsageError
from tidemark.held_signals import held_back
from tidemark.local import airflow
from tidemark.project import variables
from tidemark.project.database_settings import LOOPBACK
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tidemark.project.directory import Project

# Debian's name is the second
_ALERTMANAGER = ("alertmanager", "prometheus-alertmanager")
_SENDER = "TIDEMARK_ALERTS_BY"
_POLL_S = 0.2
_READY_S = 30
# Prometheus writes its newest samples to disk first
_STOP_S = 30
_KEEP = "30d"


@dataclass(frozen=True)
class Ports:
    """Where the programs listen on this machine."""

    metrics: int
    prometheus: int
    alertmanager: int


@dataclass(frozen=True)
class _Program:
    name: str
    port: int
    option: str
    command: Sequence[str]


def run(project: Project, ports: Ports, say: Callable[[str], None]) -> None:
    """Run all of it until this process is interrupted.

    Raises:
        BusyError: it runs already.
        UsageError: a port is taken, or a setting of alerts is wrong.
        TidemarkError: a program ended by itself.
    """
    home = project.state_dir / "monitoring"
    with hold(home / "monitoring.lock", doing="monitoring this project"), ExitStack() as stack:
        programs = _programs(project, home, ports)
        for program in programs:
            _refuse_taken(program)
        started = []
        for program in programs:
            log = project.work / "logs" / "monitoring" / f"{program.name.lower().replace(' ', '-')}.log"
            started.append((program, log, stack.enter_context(_running(project, program, log))))
        _wait_until_ready(started)
        for program in programs:
            say(f"{program.name} is on http://{LOOPBACK}:{program.port}")
        if any(program.name == "Alertmanager" for program in programs):
            say(f"{_sender(project).capitalize()} sends failed runs; set {_SENDER} to change that.")
        if len(programs) == 1:
            say(
                "Prometheus is not on PATH, so nothing collects these metrics and no alert watches them; install it "
                "(Debian: prometheus), or let yours scrape that address."
            )
        say("Ctrl-C ends this.")
        while True:
            _refuse_ended(started)
            time.sleep(_POLL_S)


def _programs(project: Project, home: Path, ports: Ports) -> list[_Program]:
    tidemark = str(project.root / ".venv" / "bin" / "tidemark")
    exporter = [tidemark, "metrics", "--host", LOOPBACK, "--port", str(ports.metrics)]
    found = [_Program("tidemark metrics", ports.metrics, "--port", exporter)]
    if prometheus := shutil.which("prometheus"):
        alertmanager = next(filter(None, map(shutil.which, _ALERTMANAGER)), None)
        configuration = _copy_configuration(project, home / "prometheus", ports, alerts=alertmanager is not None)
        if alertmanager:
            found.append(_alertmanager(project, home, ports, alertmanager))
        command = [
            prometheus,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={home / 'prometheus' / 'data'}",
            f"--storage.tsdb.retention.time={_KEEP}",
            f"--web.listen-address={LOOPBACK}:{ports.prometheus}",
            # messages and pages link there; by default it is the machine's name, where nothing listens
            f"--web.external-url=http://{LOOPBACK}:{ports.prometheus}",
            *_otlp_receiver(prometheus),
        ]
        found.append(_Program("Prometheus", ports.prometheus, "--prometheus-port", command))
    return found


def _otlp_receiver(prometheus: str) -> list[str]:
    """Return the option that lets Airflow send its metrics, which Prometheus has from 3 on."""
    said = subprocess.run([prometheus, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"version (\d+)\.", said.stdout + said.stderr)
    return ["--web.enable-otlp-receiver"] if version and int(version[1]) >= 3 else []  # noqa: PLR2004 - that version


def _copy_configuration(project: Project, to: Path, ports: Ports, *, alerts: bool) -> Path:
    """Copy Prometheus' configuration with these ports, and return its main file."""
    ours = project.root / "monitoring" / "prometheus"
    for name in ("rules", "targets"):
        shutil.rmtree(to / name, ignore_errors=True)
        shutil.copytree(ours / name, to / name)
    own = {"tidemark": ports.metrics, "prometheus": ports.prometheus, "alertmanager": ports.alertmanager}
    for name, port in own.items():
        targets = f'- targets: ["{LOOPBACK}:{port}"]\n' if name != "alertmanager" or alerts else "[]\n"
        (to / "targets" / f"{name}.yml").write_text(targets, encoding="utf-8")
    return Path(shutil.copy(ours / "prometheus.yml", to))


def _sender(project: Project) -> str:
    """Return who sends failed runs. Without an Airflow that runs, nobody else than Alertmanager would."""
    return variables.read(project).get(_SENDER) or ("airflow" if airflow.running(project) else "alertmanager")


def _alertmanager(project: Project, home: Path, ports: Ports, program: str) -> _Program:
    done = subprocess.run(
        ["sh", project.root / "monitoring" / "alertmanager" / "configure.sh"],
        env={**os.environ, **variables.read(project), _SENDER: _sender(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UsageError(done.stderr.strip().removeprefix("error: "))
    configuration = home / "alertmanager" / "alertmanager.yml"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    # it may hold the address that alerts go to, which is a secret
    configuration.touch(mode=0o600)
    configuration.write_text(done.stdout, encoding="utf-8")
    command = [
        program,
        f"--config.file={configuration}",
        f"--storage.path={home / 'alertmanager' / 'data'}",
        f"--web.listen-address={LOOPBACK}:{ports.alertmanager}",
        f"--web.external-url=http://{LOOPBACK}:{ports.alertmanager}",
        # it has no peers
        "--cluster.listen-address=",
    ]
    return _Program("Alertmanager", ports.alertmanager, "--alertmanager-port", command)


def _refuse_taken(program: _Program) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, program.port))
        except OSError as error:
            raise UsageError(
                f"{program.name} can't listen on {LOOPBACK}:{program.port} ({error.strerror}); end the program that "
                f"uses the port (Debian starts its Prometheus as a service), or name another: "
                f"`.venv/bin/tidemark monitor {program.option} {program.port + 1}`."
            ) from None


@contextmanager
def _running(project: Project, program: _Program, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with held_back() as let_go:
        with log.open("wb") as output:
            child = subprocess.Popen(
                program.command,
                cwd=project.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # a terminal's Ctrl-C goes to this process, which ends them in order
                start_new_session=True,
            )
        try:
            let_go()
            yield child
        finally:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_S)
            child.kill()
            child.wait()


def _wait_until_ready(started: Sequence[tuple[_Program, Path, subprocess.Popen[bytes]]]) -> None:
    deadline = time.monotonic() + _READY_S
    for program, log, _ in started:
        while not _listens(program.port):
            _refuse_ended(started)
            if time.monotonic() > deadline:
                raise TidemarkError(f"{program.name} does not answer after {_READY_S} s; see {log}.")
            time.sleep(_POLL_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def _refuse_ended(started: Sequence[tuple[_Program, Path, subprocess.Popen[bytes]]]) -> None:
    for program, log, child in started:
        if (status := child.poll()) is not None:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = said[-1].removeprefix("error: ") if said else "it gave no reason"
            raise TidemarkError(f"{program.name} ended with status {status}: {why}; see {log}.")
