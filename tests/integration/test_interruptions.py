"""Ctrl-C, SIGTERM, and databases that do not answer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.integration.shop import assert_raw_equals_source
from tidemark.errors import Interruption
from tidemark.project.directory import Project
from tidemark.run.meltano_run import run

CTRL_C, TERMINATED = 130, 143


# a terminal's Ctrl-C reaches the whole process group, a supervisor's SIGTERM only the process
FEW = [("Extract and load", 2.5, True)]
MANY = [
    *((None, 0.4, True), ("Servers", 0.5, True), ("Extract and load", 4, False), *FEW),
    *(("Build models", 1, True), ("Build models", 2.5, False)),
]


@pytest.mark.parametrize("moments", [FEW, pytest.param(MANY, marks=pytest.mark.long)], ids=["few", "many"])
def test_a_run_interrupted_at_any_moment_is_finished_by_the_next(checkout_on_the_systems_postgres, moments):
    checkout = checkout_on_the_systems_postgres
    for after, wait, group in moments:
        interrupt(checkout, after=after, wait=wait, group=group)
    checkout.tidemark("demo", "change", "--rows", "200")
    checkout.extract_and_load()
    assert_raw_equals_source(checkout, deleted_stay=True)


def interrupt(checkout, *, after: str | None, wait: float, group: bool) -> None:
    """Start the pipeline, interrupt it `wait` seconds after it printed that step, and check how it ends."""
    run = checkout.start("pipeline")
    assert run.stdout
    printed = ""
    while after and not (line := run.stdout.readline()).startswith(after):
        printed += line
        assert line, f"the run ended before {after}:\n{printed}"
    time.sleep(wait)
    children = [child for child in psutil.Process(run.pid).children(recursive=True) if not _is_server(child)]
    if group:
        os.killpg(run.pid, signal.SIGINT)
    else:
        run.terminate()
    printed, _ = run.communicate(timeout=60)
    assert run.returncode == (CTRL_C if group else TERMINATED), printed
    assert "Interrupted. Run the same command again" in printed
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("side", ["TAP", "TARGET"])
def test_an_unreachable_database_is_named_and_nothing_is_created(checkout, side):
    error = checkout.refusal(
        "pipeline", env={f"{side}_POSTGRES_HOST": "127.0.0.1", f"{side}_POSTGRES_DATABASE": "ledger"}
    )
    for part in ("127.0.0.1", checkout.env[f"{side}_POSTGRES_PORT"], "ledger", f"{side}_POSTGRES_HOST"):
        assert part in error
    assert not (checkout.root / ".env").exists()
    assert not (checkout.root / ".tidemark" / "postgres").exists()


def test_a_signal_during_the_start_of_meltano_leaves_no_process_behind(tmp_path, monkeypatch):
    meltano = tmp_path / ".venv" / "bin" / "meltano"
    meltano.parent.mkdir(parents=True)
    meltano.write_text("#!/bin/sh\nexec sleep 60\n")
    meltano.chmod(0o755)
    (tmp_path / ".tidemark").mkdir()
    shutil.copy(REPOSITORY / "logging.yaml", tmp_path)
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(psutil.Process(self.pid))
            signal.raise_signal(signal.SIGTERM)

    def interrupt(number, _):
        raise Interruption(number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with (
            (tmp_path / "lock").open("w") as lock,
            pytest.raises(Interruption),
            run(Project(tmp_path), ["tap", "target"], run_id="1", lock=lock.fileno(), environment={}),
        ):
            pass
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not started[0].is_running()


def _is_server(process: psutil.Process) -> bool:
    try:
        return process.name() in {"postgres", "pg_ctl", "initdb"}
    except psutil.NoSuchProcess:
        return True
