"""Long readers release a table that somebody waits to alter, so that nobody queues behind them."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import clocks
from tests.integration.marts import load
from tests.integration.stages import make_checkout
from tidemark.backup import clients, make, settings
from tidemark.local import databases
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


@contextmanager
def altering(project: Checkout, side: str, table: str, *, once: str) -> Iterator[list[float]]:
    """Alter a table as soon as a session runs something like `once`; check that the DDL does not wait long."""
    took: list[float] = []
    over = threading.Event()

    def alter() -> None:
        with project.connect(side) as connection:
            sought = "select count(*) from pg_stat_activity where query like %s and pid <> pg_backend_pid()"
            while not connection.execute(sought, [once]).fetchone()[0]:
                if over.wait(0.05):
                    return
            began = time.monotonic()
            connection.execute(f"set statement_timeout = '30s'; alter table {table} add column if not exists later int")
            took.append(time.monotonic() - began)

    thread = threading.Thread(target=alter, daemon=True)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join(timeout=40)
    assert took
    assert took[0] < clocks.LONGEST_S, f"an ALTER waited {took[0]:.1f} s"


@pytest.mark.long
def test_a_comparison_yields_to_ddl_in_the_source_and_is_still_right(project):
    rows = project.rows("source", "select count(*) from products")[0][0]
    slowly = {"public-products": f"pg_sleep({6 / rows}) is not null"}
    with (
        clocks.reader(lambda: project.connect("source"), "select from products"),
        altering(project, "source", "products", once="%SELECT%_tidemark_pending%pg_sleep%"),
    ):
        told = project.tidemark(
            "reconcile", "public-products", "--json", env={"TAP_POSTGRES_WHERE": json.dumps(slowly)}
        )
    (stream,) = json.loads(told)["streams"] if isinstance(json.loads(told), dict) else json.loads(told)
    assert (stream["missing"], stream["extra"], stream["different"]) == (0, 0, 0)
    project.rows("source", "select later from products limit 1")


class _SlowOnce:
    """A pg_dump that takes a minute the first times, as with much data."""

    def __init__(self, found: clients.Clients, directory: Path, *, times: int) -> None:
        self._found = found
        self._program = directory / "pg_dump"
        self._program.write_text(
            f'#!/bin/sh\nn=$(cat "$0.n" 2>/dev/null || echo 0); echo $((n + 1)) > "$0.n"\n'
            f'[ "$n" -lt {times} ] && exec sleep 60\nsleep 1; exec "{found["pg_dump"]}" "$@"\n'
        )
        self._program.chmod(0o755)
        self.major, self.compression = found.major, found.compression

    def __getitem__(self, program: str) -> str:
        return str(self._program)


@pytest.fixture
def dumping(project: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Dump the warehouse with a pg_dump that is slow some times; return its messages."""
    for name in os.environ:
        if name.startswith(("TAP_", "TARGET_", "DBT_", "PG")):
            monkeypatch.delenv(name)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    ours = Project(project.root)
    _, warehouse = databases.bring_up(ours)
    find = clients.find

    def dump(times: int) -> tuple[Any, list[str]]:
        monkeypatch.setattr(clients, "find", lambda *a, **k: _SlowOnce(find(*a, **k), tmp_path, times=times))
        said: list[str] = []
        options = make.BackupOptions(jobs=1, keep=None, keep_days=None)
        side = settings.login(ours, warehouse)
        with make.exclusive(ours) as lock:
            return make._dumped(ours, side, tmp_path / "dump", lock, options, said.append), said

    return dump


@pytest.mark.long
def test_a_dump_yields_to_ddl_in_the_warehouse_and_is_repeated(project, dumping):
    with (
        clocks.reader(lambda: project.connect("warehouse"), "select from raw.products"),
        altering(project, "warehouse", "raw.products", once="select format(%"),
    ):
        found, said = dumping(1)
    assert found.tables["raw.products"].rows
    (line,) = said
    assert "stopped for another session that waited for a table: pid " in line
    assert "alter table raw.products" in line


def test_a_dump_leaves_out_the_stage_of_a_load_which_may_be_dropped_meanwhile(project, dumping):
    with project.connect("warehouse") as connection:
        connection.execute("create table raw._tidemark_stage_x (id int)")
        with altering(project, "warehouse", "raw._tidemark_stage_x", once="select format(%"):
            found, said = dumping(0)
        connection.execute("drop table raw._tidemark_stage_x")
    assert not said
    assert "raw._tidemark_stage_x" not in found.tables


@pytest.mark.long
def test_models_are_altered_after_a_long_reader_while_other_readers_continue(project):
    with project.connect("warehouse") as connection, project.connect("warehouse") as analyst:
        connection.execute(load("orders", "ordered_at = '2033-05-06 12:00+00'", "order_id = 41"))
        analyst.execute("begin; select from marts.fct_sales")
        threading.Timer(6, lambda: analyst.execute("rollback")).start()
        with clocks.reader(lambda: project.connect("warehouse"), "select from marts.fct_sales limit 1"):
            project.build("--select", "fct_sales")
    assert project.rows("warehouse", "select count(*) > 0 from marts.fct_sales_2033_05") == [(True,)]
