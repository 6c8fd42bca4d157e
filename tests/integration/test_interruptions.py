"""Ctrl-C, and databases that do not answer."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from tests.integration.test_pipeline import assert_raw_equals_source


def test_ctrl_c_at_any_moment_and_the_next_run_finishes_right(checkout):
    # while servers are made, while rows are loaded, while models are built
    for seconds in (1, 4.5, 7):
        run = checkout.start("pipeline")
        time.sleep(seconds)
        if run.poll() is not None:
            pytest.fail(f"the run ended by itself: {run.communicate()[0]}")
        children = [child for child in psutil.Process(run.pid).children(recursive=True) if not _is_server(child)]
        os.killpg(run.pid, signal.SIGINT)
        printed, _ = run.communicate(timeout=60)
        assert run.returncode == 130, printed
        assert "Interrupted. Run the same command again" in printed
        assert "Traceback" not in printed
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    checkout.tidemark("demo", "change", "--rows", "200")
    checkout.tidemark("pipeline")
    assert_raw_equals_source(checkout, deleted_stay=True)


@pytest.mark.parametrize("side", ["TAP", "TARGET"])
def test_an_unreachable_database_is_named_and_nothing_is_made(checkout, side):
    error = checkout.refusal(
        "pipeline", env={f"{side}_POSTGRES_HOST": "127.0.0.1", f"{side}_POSTGRES_DATABASE": "ledger"}
    )
    for part in ("127.0.0.1", checkout.env[f"{side}_POSTGRES_PORT"], "ledger", f"{side}_POSTGRES_HOST"):
        assert part in error
    assert not (checkout.root / ".env").exists()
    assert not (checkout.root / ".tidemark" / "postgres").exists()


def _is_server(process: psutil.Process) -> bool:
    try:
        return process.name() in {"postgres", "pg_ctl", "initdb"}
    except psutil.NoSuchProcess:
        return True
