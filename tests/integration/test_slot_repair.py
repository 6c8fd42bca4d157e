"""`tidemark slots repair` brings LOG_BASED streams back by comparing them with the source, and copies what differs."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.integration.checkout import Checkout

SLOT = "tidemark_tap_postgres"
RUN = ("run", "tap-postgres", "target-postgres")


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """Yield the demo, of which some tables follow the log, one of them in partitions."""
    for checkout in make_checkout(stage="loaded"):
        definition = checkout.root / "extract" / "extractors.meltano.yml"
        text = definition.read_text()
        for name in ("orders", "order_items"):
            text = text.replace(f"public-{name}: *incremental", f"public-{name}: {{replication-method: LOG_BASED}}")
        rule = "".join(f"        public-{name}: {{replication-method: LOG_BASED}}\n" for name in ("events", "blank"))
        text = text.replace("        public-orders:", rule + "        public-orders:", 1)
        text = text.replace(
            "        - public-orders.*\n",
            "        - public-orders.*\n        - public-events.*\n        - public-blank.*\n",
            1,
        )
        definition.write_text(text)
        with checkout.connect("source") as connection:
            connection.execute("alter system set wal_level = logical")
            connection.execute("""
                create table events (id int, day int, name text, primary key (id, day)) partition by list (day);
                create table events_1 partition of events for values in (1);
                create table events_2 partition of events for values in (2);
                insert into events select i, 1 + mod(i, 2), 'e' from generate_series(1, 100) i;
                create table blank (id int primary key);
            """)
        checkout.tidemark("down")
        checkout.tidemark("up")
        checkout.tidemark("slots", "create")
        checkout.extract_and_load()
        yield checkout


def change(project: Checkout, *statements: str) -> None:
    with project.connect("source") as connection:
        for statement in statements:
            connection.execute(statement.encode())


def assert_equal(project: Checkout) -> None:
    for found in json.loads(project.tidemark("reconcile", "--json")):
        assert (found["missing"], found["different"], found["extra"]) == (0, 0, 0), found
    fits = {each["stream"]: each["fit"] for each in json.loads(project.tidemark("state", "check", "--json"))}
    assert set(fits.values()) == {"fits"}


def rows_read(project: Checkout) -> int:
    ((count,),) = project.rows(
        "warehouse", "select coalesce(sum(rows_read), 0)::int from raw._tidemark_runs where stream like 'public-order%'"
    )
    return int(count)


@pytest.mark.long
def test_streams_of_a_lost_slot_come_back_with_only_what_differs(project):
    project.tidemark("slots", "drop", SLOT, "--yes")
    (log,) = [each for each in map(json.loads, project.tidemark("status", "--json").splitlines()) if "position" in each]
    assert {each["state"] for each in log["streams"]} == {"to be repaired"}
    assert f"The source has no replication slot {SLOT}" in log["fault"]
    assert f"The source has no replication slot {SLOT}" in project.tidemark("status").replace("\n", " ")
    change(project, "update orders set shipping_fee = 76 where order_id = 4")
    assert "no run can follow its slot: see `tidemark status`" in project.tidemark("trace", "public-orders", "4")
    change(
        project,
        "update orders set shipping_fee = 77 where order_id = 4",
        "delete from order_items where order_id = 3",
        "delete from events where id = 5",
        "alter table events add place text default 'here'",
        "insert into blank values (1)",
    )
    before = rows_read(project)
    said = project.tidemark("slots", "repair")
    assert "pg_create_logical_replication_slot" in said
    assert "public-events has new columns, place: the next run reads it whole" in said
    change(project, "update orders set shipping_fee = 78 where order_id = 5")
    project.extract_and_load()
    assert rows_read(project) - before < 20
    assert project.rows("warehouse", "select id from raw.blank") == [(1,)]
    # its deleted row
    project.tidemark("slots", "repair", "public-events")
    assert_equal(project)
    places = "select distinct place from raw.events where _sdc_deleted_at is null"
    assert project.rows("warehouse", places) == [("here",)]
    assert "follow their slots" in project.tidemark("slots", "repair")


@pytest.mark.long
def test_a_stream_that_left_the_cut_comes_back_while_the_others_go_on(project):
    with project.connect("warehouse") as connection:
        connection.execute("alter table raw.orders add constraint cheap check (shipping_fee < 1000) not valid")
    change(
        project,
        "update orders set shipping_fee = 2000 where order_id = 6",
        "delete from order_items where order_id = 7",
    )
    assert "cheap" in project.run("meltano", "run", "tap-postgres", "target-postgres").stderr
    assert project.rows("warehouse", "select from raw.order_items where order_id = 7 and _sdc_deleted_at is null") == []
    with project.connect("warehouse") as connection:
        connection.execute("alter table raw.orders drop constraint cheap")
    assert (
        "tidemark slots repair public-orders" in project.run("meltano", "run", "tap-postgres", "target-postgres").stderr
    )
    project.tidemark("slots", "repair", "public-orders")
    project.extract_and_load()
    assert_equal(project)


@pytest.mark.long
def test_what_the_log_does_not_tell_of_is_found_and_repaired(project):
    change(
        project,
        "truncate events_2",
        "create table events_3 (like events including all)",
        "insert into events_3 values (500, 3, 'attached')",
        "alter table events attach partition events_3 for values in (3)",
        "alter table orders alter column shipping_fee type numeric(12, 2) using shipping_fee + 1",
    )
    project.extract_and_load()
    doubts = dict(project.rows("warehouse", "select stream, repair from raw._tidemark_state where repair is not null"))
    assert doubts == {
        "public-events": "events_2 was rewritten or truncated and events_3 was attached",
        "public-orders": "orders was rewritten or truncated",
    }
    project.tidemark("slots", "repair", "--allow-deletes", "100%")
    assert_equal(project)
    change(project, "truncate order_items", "insert into events values (501, 3, 'later')")
    project.extract_and_load()
    project.extract_and_load()
    assert project.rows("warehouse", "select stream from raw._tidemark_state where repair is not null") == []
    assert_equal(project)


@pytest.mark.long
def test_a_comparison_knows_what_the_log_has_and_the_warehouse_does_not_have_yet(project):
    with project.connect("warehouse") as connection:
        connection.execute("update raw.orders set shipping_fee = -1 where order_id in (8, 9)")
        connection.execute("delete from raw.events where id = 8")
    change(
        project,
        "update orders set shipping_fee = 5 where order_id = 9",
        "delete from orders where order_id = 11",
        "update events set id = 900 where id = 10",
    )
    found = {each["stream"]: each for each in json.loads(project.run("tidemark", "reconcile", "--json").stdout)}
    assert (found["public-orders"]["different"], found["public-orders"]["extra"]) == (1, 0)
    assert found["public-orders"]["pending"] == 2
    events = found["public-events"]
    assert [events[kind] for kind in ("missing", "extra", "different", "pending")] == [1, 0, 0, 2]
    project.tidemark("reconcile", "--repair", "public-orders", "public-events")
    assert project.rows("warehouse", "select shipping_fee from raw.orders where order_id = 9") == [(-1,)]
    project.extract_and_load()
    assert_equal(project)


@pytest.mark.long
def test_rows_that_change_while_a_run_follows_are_pending_and_one_that_differs_is_found(project):
    run = project.start(*RUN, program="meltano", env={"TAP_POSTGRES_REPLICATION_MAX_RUN_SECONDS": "40"})
    ended = threading.Event()

    def write() -> None:
        with project.connect("source") as connection:
            while not ended.wait(0.05):
                connection.execute(
                    "update orders set shipping_fee = mod(shipping_fee + 1, 50) where order_id in (14, 15)"
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        time.sleep(10)
        with project.connect("warehouse") as connection:
            connection.execute("update raw.orders set shipping_fee = -1 where order_id = 16")
        (found,) = json.loads(project.run("tidemark", "reconcile", "public-orders", "--json").stdout)
    finally:
        ended.set()
        writer.join()
        output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert (found["examples"]["different"], found["missing"], found["extra"]) == ([["16"]], 0, 0)
    project.tidemark("reconcile", "--repair", "public-orders")
    assert_equal(project)
    # nobody writes to it
    change(project, "alter table events rename id to number")
    assert "has no column number; run the pipeline" in project.run("tidemark", "reconcile", "public-events").stdout
    project.extract_and_load()
    assert_equal(project)


@pytest.mark.long
def test_rows_that_the_run_beside_a_comparison_ends_without_are_pending(project):
    change(project, "update orders set shipping_fee = 21 where order_id = 21")
    with project.connect("warehouse") as warehouse, project.connect("source") as source:
        with warehouse.transaction():
            warehouse.execute("lock table raw.orders in share mode")
            run = project.start(*RUN, program="meltano", env={"MELTANO_RUN_FORCE": "1"})
            until(source, "select active_pid is not null from pg_replication_slots where slot_name = %s", SLOT)
            until(warehouse, "select count(*) > 0 from pg_locks where not granted")
            # the run ends where the log was at its start
            change(project, "update orders set shipping_fee = 22 where order_id = 22")
            comparison = project.start("reconcile", "public-orders", "--json")
            looks = "select count(*) > 0 from pg_stat_activity where query ~ 'active_pid' and pid <> pg_backend_pid()"
            until(source, looks)
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
    (found,) = json.loads(comparison.communicate(timeout=120)[0])
    assert [found[kind] for kind in ("missing", "extra", "different", "pending")] == [0, 0, 0, 1], found
    project.extract_and_load()
    assert_equal(project)


def until(connection: psycopg.Connection[Any], query: str, *values: object) -> None:
    """Wait until a query returns true."""
    for _ in range(300):
        row = connection.execute(query.encode(), values).fetchone()
        if row and row[0]:
            return
        time.sleep(0.1)
    raise AssertionError(query)


def set_condition(project: Checkout, condition: str) -> None:
    with (project.root / ".env").open("a") as file:
        file.write(f"TAP_POSTGRES_WHERE='{json.dumps({'public-orders': condition})}'\n")


def write(project: Checkout, order_id: int) -> None:
    """Change rows of two conditions, and insert one of the earlier condition alone, which the log has by that one."""
    copy = "jsonb_populate_record(o, jsonb_build_object('order_id', order_id + {}))"
    change(
        project,
        f"insert into orders overriding system value select ({copy}).* from orders o where order_id = 20".format(
            order_id
        ),
        "update orders set shipping_fee = shipping_fee + 1 where order_id in (6, 7, 8, 19)",
    )


@pytest.mark.long
@pytest.mark.parametrize("between", ["nothing", "a refused run", "a run"])
def test_a_stream_has_the_rows_of_its_new_condition_without_being_loaded_again(project, between):
    before = rows_read(project)
    number = ["nothing", "a refused run", "a run"].index(between)
    write(project, 900_000 + 10 * number)
    set_condition(project, f"order_id > {5 + number} and order_id < {900_000 - number}")
    if between == "a refused run":
        failed = project.run("tidemark", "run", *RUN[1:])
        assert "`tidemark slots create` brings it up to date, and then `tidemark slots repair`" in failed.stderr
        assert "`tidemark slots create` brings it up to date" in project.refusal("slots", "repair")
    project.tidemark("slots", "create")
    write(project, 900_001 + 10 * number)
    if between == "a run":
        project.extract_and_load()
        assert "its condition (where) was changed" in project.tidemark("status")
    project.tidemark("slots", "repair")
    if between == "nothing":
        # and again, before a run
        set_condition(project, f"order_id > {5 + number} and order_id < {899_999 - number}")
        project.tidemark("slots", "create")
        assert "follow their slots" not in project.tidemark("slots", "repair")
    write(project, 900_002 + 10 * number)
    project.extract_and_load()
    assert_equal(project)
    ids = "select min(order_id), max(order_id) < 900000 from raw.orders where _sdc_deleted_at is null"
    assert project.rows("warehouse", ids) == [(6 + number, True)]
    assert rows_read(project) - before < 20
    assert "follow their slots" in project.tidemark("slots", "repair")
