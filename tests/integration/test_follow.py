"""`tidemark follow`: what it says meanwhile, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.integration.stages import make_checkout
from tests.integration.test_slots import SLOT, follow_log, slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture
def project() -> Iterator[Checkout]:
    """A project whose orders and order_items follow the log."""
    for checkout in make_checkout(stage="loaded"):
        follow_log(checkout)
        yield checkout


def change(project: Checkout, number: int) -> None:
    """Change a row in the source, and wait until it is in the warehouse."""
    with project.connect("source") as connection:
        connection.execute("update orders set shipping_fee = %s where order_id = 4", [number])
    deadline = time.monotonic() + 40
    while project.rows("warehouse", "select shipping_fee from raw.orders where order_id = 4") != [(number,)]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def outcome(project: Checkout) -> str:
    status = [json.loads(line) for line in project.tidemark("status", "--json").splitlines()]
    return next(each["outcome"] for each in status if each.get("stream") == "public-orders")


@pytest.mark.long
def test_a_follower_that_gets_sigterm_loads_what_it_has_read_and_ends_within_seconds(project):
    follower = project.start("follow", "--seconds", "600")
    for number in range(1, 4):
        change(project, number)
    for command in ("drop", "advance"):
        refused = project.refusal("slots", command, SLOT, "--yes")
        assert f"A run streams the slot {SLOT} (tidemark tap-postgres " in refused
        assert "wait until it ends, or stop it (Ctrl-C, or SIGTERM for `tidemark follow`)" in refused
    assert "has all that its LOG_BASED streams need" in project.tidemark("slots", "create")
    assert "is running the pipeline; wait for it to end" in project.refusal("slots", "repair")
    with project.connect("source") as connection:
        connection.execute("update orders set shipping_fee = 4 where order_id = 4")
    # as long as it takes to arrive, and less than a flush
    time.sleep(0.5)
    asked = time.monotonic()
    follower.terminate()
    printed, _ = follower.communicate(timeout=60)
    assert (follower.returncode, time.monotonic() - asked < 15) == (0, True), printed
    assert project.rows("warehouse", "select shipping_fee from raw.orders where order_id = 4") == [(4,)]
    status = [json.loads(line) for line in project.tidemark("status", "--json").splitlines()]
    outcomes = {each["stream"]: each["outcome"] for each in status if "outcome" in each}
    assert set(outcomes.values()) == {"succeeded"}
    (slot,) = slots(project)
    assert slot["confirmed"] == slot["warehouse"]
    seen = "retained_bytes >= behind_bytes, behind_bytes < 100000, measured_at > now() - interval '1 minute'"
    assert project.rows("warehouse", f"select {seen} from raw._tidemark_slots") == [(True, True, True)]


@pytest.mark.long
def test_ctrl_c_ends_a_follower_as_sigterm_does_and_status_knows_that_one_which_was_killed_does_not_run(project):

    def made(number: int) -> Any:
        # as in a terminal, whose Ctrl-C goes to make and all below it
        process = project.start("--no-print-directory", "-o", "setup", "follow", program=str(shutil.which("make")))
        change(project, number)
        return process

    with made(1) as follower:
        os.killpg(follower.pid, signal.SIGINT)
        printed, _ = follower.communicate(timeout=60)
    # make itself may end by the signal
    assert follower.returncode in {0, -signal.SIGINT}
    assert "changes loaded, " in printed, "it says how far it is"
    assert printed.splitlines()[-1].startswith("Run ")
    assert " succeeded; " in printed.splitlines()[-1]
    assert (outcome(project), "make: ***" in printed) == ("succeeded", False)

    with made(2) as follower:
        of_it = psutil.Process(follower.pid).children(recursive=True)
        with project.connect("warehouse") as connection, connection.transaction():
            connection.execute("lock table raw.orders")
            with project.connect("source") as source:
                source.execute("update orders set shipping_fee = 99 where order_id = 4")
            time.sleep(3)
            os.killpg(follower.pid, signal.SIGINT)
            assert "Ctrl-C again interrupts it" in next(line for line in follower.stdout if "Ending" in line)
            os.killpg(follower.pid, signal.SIGINT)
            printed, _ = follower.communicate(timeout=60)
    assert "Interrupted." in printed
    assert (outcome(project), any(each.is_running() for each in of_it)) == ("killed", False)

    # the rest ends by itself, with all that was read
    with project.start("follow") as follower:
        change(project, 3)
        of_it = psutil.Process(follower.pid).children(recursive=True)
        follower.kill()
        follower.wait()
        assert not psutil.wait_procs(of_it, timeout=30)[1]
    assert outcome(project) == "succeeded"


def shut_down_source(project: Checkout, *, within_s: float) -> None:
    """Have the source's server shut down, as a package manager would, and start it again."""
    (directory,) = project.rows("source", "show data_directory")
    server = psutil.Process(int((Path(directory[0]) / "postmaster.pid").read_text().split()[0]))
    server.send_signal(signal.SIGINT)
    server.wait(timeout=within_s)


@pytest.mark.long
def test_the_source_can_shut_down_while_a_run_follows_also_if_the_target_stands_still(project):
    fee = "update orders set shipping_fee = {} where order_id = 4"
    for number, stops in enumerate((False, True), start=1):
        follower = project.start("follow", "--seconds", "600", env={"TAP_POSTGRES_STALL_SECONDS": "10"})
        change(project, number)
        if stops:
            of_it = psutil.Process(follower.pid).children(recursive=True)
            target = next(each for each in of_it if "target-postgres" in " ".join(each.cmdline()[:3]))
            target.suspend()
            with project.connect("source") as connection:
                connection.execute(fee.format(99))
        try:
            shut_down_source(project, within_s=30)
        finally:
            if stops:
                target.resume()
        printed, _ = follower.communicate(timeout=90)
        assert follower.returncode, printed
        assert ("replication_failed" in printed) or ("source_unreachable" in printed), printed
        project.tidemark("up")
        project.extract_and_load()
    assert project.rows("warehouse", "select shipping_fee from raw.orders where order_id = 4") == [(99,)]
