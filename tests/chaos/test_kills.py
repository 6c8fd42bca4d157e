"""kill -9 of every process, again and again, while the shop is open: afterwards source and warehouse are equal."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from tests.chaos.conftest import LONG
from tests.chaos.traffic import Traffic
from tests.integration.shop import TABLES, assert_raw_equals_source

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout

KILLS = int(os.environ.get("KILLS") or (200 if LONG else 1))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
# the command, after how many seconds a process of it is killed, and which one
EXTRACT = ("meltano", "run", "tap-postgres", "target-postgres")
BUILD = ("meltano", "run", "dbt-postgres:run")
WHOLE = ("tidemark", "pipeline")
# tests of tap and target alone kill these two in `make test`
SHORT = [(EXTRACT, 1, 3, "postmaster")]
CASES = [
    *SHORT,
    (EXTRACT, 1.8, 2.5, "target"),
    (EXTRACT, 1.8, 2.5, "tap"),
    (EXTRACT, 1, 3, "tap"),
    (EXTRACT, 1, 3, "target"),
    (BUILD, 1, 6, "dbt"),
    (EXTRACT, 0.05, 4, "meltano"),
    (BUILD, 1, 6, "meltano"),
    (BUILD, 1, 6, "postmaster"),
    (WHOLE, 0.5, 15, "tidemark"),
    (WHOLE, 1, 15, "meltano"),
    (WHOLE, 1, 15, "postmaster"),
]
MARKS = {"tap": "tidemark-tap-postgres", "target": "tidemark-target-postgres", "dbt": "tidemark-dbt"}
# the program, which is the second word of the command, distinguishes Meltano's own processes from its plugins
MARKS |= {"meltano": "/.venv/bin/meltano", "tidemark": "/.venv/bin/tidemark"}


def test_processes_are_killed_anywhere_under_traffic_and_both_sides_end_equal(checkout_on_the_systems_postgres):
    checkout = checkout_on_the_systems_postgres
    checkout.tidemark("demo", "load", "--scale", "0.005")
    killed: dict[str, int] = {}
    with Traffic(lambda: checkout.connect("source")):
        for number in range(3 * KILLS):
            command, earliest, latest, victim = (CASES if LONG else SHORT)[number % len(CASES if LONG else SHORT)]
            after_s = random.Random(f"{SEED} {number}").uniform(earliest, latest)
            if strike(checkout, command, victim, after_s=after_s):
                killed[victim] = killed.get(victim, 0) + 1
            if sum(killed.values()) == KILLS:
                break
    assert sum(killed.values()) == KILLS, killed

    # nobody forced or reset anything by hand
    if LONG:
        build(checkout)
    else:
        checkout.tidemark("up")
        # the load that resumes a killed first load ends at its watermark; the run after it reads what came later
        checkout.extract_and_load()
        checkout.extract_and_load()
    checkout.tidemark("reconcile", "--repair", "--allow-deletes", "100%")
    if LONG:
        build(checkout)
    checkout.tidemark("reconcile")
    assert_raw_equals_source(checkout, deleted_stay=True)
    for table, key in TABLES.items():
        live = f"select count(*), count(distinct {key}) from raw.{table} where _sdc_deleted_at is null"
        ((count, keys),) = checkout.rows("warehouse", live)
        assert (count,) == checkout.rows("source", f"select count(*) from {table}")[0]
        assert count == keys
    assert_nobody_is_left(checkout)
    if LONG:
        sys.__stderr__.write(f"killed {KILLS} times: {killed}\n")


# of a sale whose customer has no version at its time, or two: what each model has of the customer
EVIDENCE = """
    select 'sale', to_jsonb(sale) from marts.fct_sales sale where order_item_id in (select order_item_id from {failed})
    union all
    select 'customer', to_jsonb(found) from staging.stg_customers found where customer_id in ({customers})
    union all
    select 'snapshot', to_jsonb(found) from intermediate.customers_snapshot found where customer_id in ({customers})
    union all
    select 'version', to_jsonb(found) from marts.dim_customers_history found where customer_id in ({customers})
    union all
    select 'model', to_jsonb(found) from marts._tidemark_models found
"""


def build(checkout: Checkout) -> None:
    """Run the whole pipeline; if a data test fails, say what the models have."""
    done = checkout.run("tidemark", "pipeline")
    if done.returncode:
        failed = "test_failures.a_sale_has_one_version_of_its_customer"
        customers = (
            f"select customer_id from marts.fct_sales where order_item_id in (select order_item_id from {failed})"
        )
        try:
            rows = checkout.rows("warehouse", EVIDENCE.format(failed=failed, customers=customers))
        except psycopg.Error as error:
            rows = [("no evidence", error)]
        pytest.fail(done.stdout + done.stderr + "\n".join(map(str, rows)))


def strike(checkout: Checkout, command: tuple[str, ...], victim: str, *, after_s: float) -> bool:
    """Run a command and kill one of its processes; return whether that process existed."""
    if server(checkout) is None:
        checkout.tidemark("up")
    program, *arguments = command
    run = checkout.start(*arguments, program=program, env={"MELTANO_RUN_FORCE": "1"})
    leader = psutil.Process(run.pid)
    time.sleep(after_s)
    with suppress(psutil.NoSuchProcess):
        family = [leader, *leader.children(recursive=True)]
        one = server(checkout) if victim == "postmaster" else find(family, MARKS[victim])
        found = one is not None and one.is_running()
        if one is not None:
            one.kill()
        await_end(run, f"{victim} was killed after {after_s:.2f} s")
        # they end by themselves, whatever their parent was; a `meltano run` without its parent finishes the whole job
        _, alive = psutil.wait_procs(family, timeout=300)
        alive = [each for each in alive if each.is_running() and not is_server(each)]
        assert not alive, (command, victim, [each.cmdline() for each in alive])
        return found
    await_end(run, f"{victim} was not found after {after_s:.2f} s")
    return False


def await_end(run: subprocess.Popen[str], what: str) -> None:
    """Wait for a command to end; if it does not, say what it had written by then, and who is left."""
    try:
        run.communicate(timeout=120)
    except subprocess.TimeoutExpired as error:
        said = error.output.decode() if isinstance(error.output, bytes) else error.output
        left = [
            (each.pid, each.status(), each.cmdline()[:3])
            for each in psutil.process_iter()
            if psutil.pid_exists(each.pid) and os.getpgid(each.pid) == run.pid
        ]
        pytest.fail(f"{run.args} did not end; {what}; left: {left}; it wrote:\n{said}")


def server(checkout: Checkout) -> psutil.Process | None:
    """Return the warehouse's postmaster, if it is running."""
    with suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess):
        pid_file = checkout.root / ".tidemark" / "postgres" / "warehouse" / "data" / "postmaster.pid"
        process = psutil.Process(int(pid_file.read_text().split()[0]))
        if is_server(process):
            return process
    return None


def find(family: list[psutil.Process], mark: str) -> psutil.Process | None:
    for process in family:
        with suppress(psutil.NoSuchProcess):
            if any(word.endswith(mark) for word in process.cmdline()[:2]):
                return process
    return None


def is_server(process: psutil.Process) -> bool:
    try:
        return process.name() in {"postgres", "pg_ctl", "initdb"} and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_nobody_is_left(checkout: Checkout) -> None:
    root = str(checkout.root)
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = root in " ".join(process.cmdline()) or process.cwd() == root
            if mine and not is_server(process) and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process.cmdline())
    assert not left
