"""`tidemark slots` makes what LOG_BASED streams need, and the shop follows its log."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.stages import make_checkout
from tests.integration.test_onboard_whole import DATA, strangers
from tests.singer.test_crashes import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

SLOT = "tidemark_tap_postgres"
ORPHAN = "tidemark_of_a_removed_project"


@pytest.fixture
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="loaded")


def slots(project: Checkout) -> list[dict[str, object]]:
    return json.loads(project.tidemark("slots", "list", "--json"))


def log_of(project: Checkout) -> dict[str, Any]:
    status = [json.loads(line) for line in project.tidemark("status", "--json").splitlines()]
    (log,) = [each for each in status if each.get("side") == "log"]
    return log


def edit_streams(project: Checkout) -> None:
    definition = project.root / "extract" / "extractors.meltano.yml"
    text = definition.read_text()
    for name in ("orders", "order_items"):
        text = text.replace(f"public-{name}: *incremental", f"public-{name}: {{replication-method: LOG_BASED}}")
    definition.write_text(text)


def follow_log(project: Checkout) -> None:
    """Have orders and order_items follow the log."""
    edit_streams(project)
    with project.connect("source", "postgres") as connection:
        connection.execute("alter system set wal_level = logical")
    project.tidemark("down")
    project.tidemark("up")
    project.tidemark("slots", "create")
    project.extract_and_load()


@pytest.fixture
def following(project: Checkout) -> Checkout:
    """A project whose orders and order_items follow the log."""
    follow_log(project)
    return project


@pytest.mark.long
def test_the_shop_follows_its_log_after_the_steps_of_the_page(project):
    edit_streams(project)
    assert "LOG_BASED streams need wal_level logical" in project.run("tidemark", "check").stdout
    assert "wal_level needs a restart" in project.refusal("slots", "create")
    project.tidemark("down")
    project.tidemark("up")
    statements = project.tidemark("slots", "create", "--sql")
    assert "CREATE PUBLICATION" in statements
    assert "pg_create_logical_replication_slot" in statements
    assert slots(project) == []
    project.tidemark("slots", "create")
    assert "has all that its LOG_BASED streams need" in project.tidemark("slots", "create")
    project.tidemark("check")

    project.extract_and_load()
    with project.connect("source") as connection:
        connection.execute("delete from order_items where order_id = 3")
        connection.execute("update orders set shipping_fee = 99 where order_id = 4")
    project.extract_and_load()
    # they were INCREMENTAL, which does not see deletes, until a comparison finds them equal
    assert {each["state"] for each in log_of(project)["streams"]} == {"to be repaired"}
    assert "rows that were deleted before it followed the log" in project.tidemark("status")
    for found in json.loads(project.tidemark("reconcile", "--json")):
        assert (found["missing"], found["different"], found["extra"]) == (0, 0, 0), found
    assert project.rows("warehouse", "select shipping_fee from raw.orders where order_id = 4") == [(99,)]
    (slot,) = slots(project)
    assert slot["slot"] == SLOT
    assert slot["confirmed"] == slot["warehouse"]
    fits = {each["stream"]: each["fit"] for each in json.loads(project.tidemark("state", "check", "--json"))}
    assert set(fits.values()) == {"fits"}
    log = log_of(project)
    assert (log["slot"], log["position"]) == (SLOT, slot["warehouse"])
    assert (log["lag_bytes"] < 2**20, log["lag_seconds"] < 600) == (True, True)
    assert {each["stream"]: each["state"] for each in log["streams"]} == {
        "public-order_items": "following",
        "public-orders": "following",
    }
    assert "following" in project.tidemark("status")
    project.tidemark("metrics", "--textfile", str(project.root / "x.prom"))
    metrics = (project.root / "x.prom").read_text()
    states = re.findall(r'tidemark_stream_log_state\{.*state="following",stream="([^"]*)"\} 1.0', metrics)
    assert sorted(states) == ["public-order_items", "public-orders"]
    assert re.search(rf'tidemark_slot_lag_seconds\{{.*slot="{SLOT}".*\}}', metrics)
    with project.connect("source") as connection:
        connection.execute("update orders set shipping_fee = 98 where order_id = 4")
    raw = json.loads(project.tidemark("trace", "public-orders", "4", "--json"))[1]
    assert "differs: the next run may read it from the log" in raw["said"]
    assert "LOG_BASED, following: the slot is" in raw["said"]

    project.tidemark("slots", "drop", SLOT, "--yes")
    assert slots(project) == []
    assert "has no replication slot" in project.run("tidemark", "check").stdout


def comes_back(project: Checkout) -> None:
    """Repair the slot's streams, and go on; then all is equal."""
    project.tidemark("slots", "repair")
    project.extract_and_load()
    for found in json.loads(project.tidemark("reconcile", "--json")):
        assert (found["missing"], found["different"], found["extra"]) == (0, 0, 0), found


def check_names_what_leaves_no_room(project: Checkout) -> None:
    with project.connect("source") as connection:
        connection.execute(
            "select pg_create_physical_replication_slot('taken_' || i) "
            "from generate_series(1, current_setting('max_replication_slots')::int) i"
        )
        assert "(max_replication_slots) are in use" in " ".join(project.run("tidemark", "check").stdout.split())
        connection.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
        connection.execute(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    none = {"TAP_POSTGRES__METADATA": '{"*": {"replication-method": "FULL_TABLE"}}'}
    found = " ".join(project.run("tidemark", "check", env=none).stdout.split())
    assert "nobody reads it" in found
    assert "because no stream is LOG_BASED" in found


@pytest.mark.long
def test_a_slot_that_was_advanced_or_keeps_too_much_wal_is_named_with_what_to_do(following):
    project = following
    with project.connect("source") as connection:
        connection.execute("update orders set shipping_fee = 99 where order_id = 4")
        connection.execute(f"select pg_create_logical_replication_slot('{ORPHAN}', 'pgoutput')")
        connection.execute("alter system set wal_sender_timeout = 0")
        connection.execute("select pg_reload_conf()")
        wal = "select count(pg_logical_emit_message(false, 'test', repeat('x', 100000))) from generate_series(1, 400)"
        connection.execute(wal)
    own, orphan = sorted(slots(project), key=lambda each: str(each["slot"]), reverse=True)
    assert (own["slot"], own["is_ours"], own["streams"]) == (SLOT, True, ["public-order_items", "public-orders"])
    assert not orphan["is_ours"]
    found = project.run("tidemark", "check").stdout
    assert f"{ORPHAN} keeps" in found
    assert "wal_sender_timeout is 0" in found

    # no run has to happen
    over = {"TAP_POSTGRES_MAX_SLOT_WAL_MB": "20"}
    assert "max_slot_wal_mb allows for tidemark_tap_postgres" in project.refusal("slots", "list", env=over)
    assert "max_slot_wal_mb allows 20 MB" in project.run("tidemark", "check", env=over).stdout
    assert "run its tap, or drop it" in project.refusal("slots", "enforce", env=over)
    # as Airflow runs it
    failed = project.run("tidemark", "run", "tidemark:slots", env=over)
    assert (failed.returncode, "slot_wal_exceeded" in failed.stderr) == (1, True), failed.stderr
    project.tidemark("run", "tidemark:slots")

    assert "Nothing was advanced; --yes advances" in project.refusal("slots", "advance", SLOT)
    assert "is not between" in project.refusal("slots", "advance", SLOT, "--to", "0/1", "--yes")
    said = project.tidemark("slots", "advance", SLOT, "--yes")
    assert "must be repaired then: public-order_items, public-orders" in said
    failed = project.run("tidemark", "run", "tap-postgres", "target-postgres")
    assert failed.returncode
    assert "slot_ahead" in failed.stdout + failed.stderr
    assert project.rows("warehouse", "select count(*) from raw.orders where shipping_fee = 99") == [(0,)]

    comes_back(project)
    over["TAP_POSTGRES_MAX_SLOT_WAL_ACTION"] = "drop"
    with project.connect("source") as writer, writer.transaction():
        writer.execute("create table held (id int)")
        with project.connect("source") as connection:
            connection.execute(wal)
            connection.execute(wal)
        # the server has to keep what the open transaction may have written
        project.tidemark("slots", "advance", SLOT, "--yes")
        found = " ".join(project.run("tidemark", "check").stdout.split())
        assert re.search(r"each start of a run reads \d+ MB of the log again", found)
        assert "the oldest open transaction is of pid" in found
        assert "it was dropped; `tidemark slots repair" in project.refusal("slots", "enforce", env=over)
    assert [each["is_ours"] for each in slots(project)] == [False]
    project.tidemark("slots", "drop", ORPHAN, "--yes")
    check_names_what_leaves_no_room(project)


@pytest.mark.long
def test_a_restored_warehouse_is_refused_with_the_advice_to_repair_and_a_drill_does_not_move_the_slot(following):
    project = following
    project.tidemark("backup")
    (before,) = slots(project)
    said = project.tidemark("backup", "drill")
    assert "No sync of 2 LOG_BASED streams of " in said
    assert "The drill succeeded" in said
    (after,) = slots(project)
    assert (after["confirmed"], after["warehouse"]) == (before["confirmed"], before["warehouse"])

    with project.connect("source") as connection:
        connection.execute("update orders set shipping_fee = 99 where order_id = 4")
    project.extract_and_load()
    project.tidemark("restore", "latest", "--replace", "--yes")
    (slot,) = slots(project)
    assert slot["warehouse"] == before["warehouse"]
    failed = project.run("tidemark", "run", "tap-postgres", "target-postgres")
    assert failed.returncode
    assert "slot_ahead" in failed.stdout + failed.stderr
    assert "Was the slot made again, or the warehouse restored?" in failed.stdout + failed.stderr
    assert project.rows("warehouse", "select count(*) from raw.orders where shipping_fee = 99") == [(0,)]
    assert "`tidemark slots repair`" in failed.stdout + failed.stderr
    comes_back(project)
    assert project.rows("warehouse", "select count(*) from raw.orders where shipping_fee = 99") == [(1,)]

    # a pause
    project.tidemark("slots", "drop", SLOT, "--yes")
    with project.connect("source") as connection:
        connection.execute("delete from order_items where order_id = 5")
    assert "slot_missing" in project.run("tidemark", "run", "tap-postgres", "target-postgres").stderr
    make_in_vain(project)
    comes_back(project)


def make_in_vain(project: Checkout) -> None:
    """Make the slot while a transaction is open, and give up by Ctrl-C: nothing of it is left."""
    state = f"select confirmed_flush_lsn is null from pg_replication_slots where slot_name = '{SLOT}'"
    with project.connect("source") as writer, writer.transaction():
        writer.execute("update orders set shipping_fee = 98 where order_id = 4")
        maker = project.start("slots", "create")
        wait_for(lambda: project.rows("source", state) == [(True,)])
        for command in ("create", "repair"):
            assert f"The replication slot {SLOT} is being made (pid " in project.refusal("slots", command)
        assert "is being made" in " ".join(project.run("tidemark", "check").stdout.split())
        maker.send_signal(signal.SIGINT)
        printed, _ = maker.communicate(timeout=60)
        assert "waits for the end of all transactions that have written something; the oldest, " in printed
        wait_for(lambda: project.rows("source", state) == [])


@pytest.mark.long
def test_onboarding_has_a_table_follow_the_log_once_an_administrator_has_run_what_it_prints():
    with strangers() as all_:
        with all_.connect("postgres") as connection:
            connection.execute("alter system set wal_level = logical")
        all_.checkout.tidemark("down")
        all_.checkout.tidemark("up")
        all_.make("music", DATA / "music.sql")
        options = ("music", *all_.address("music"), "--yes", "--log-based", "Album", "--log-based", "Track")
        refused = all_.checkout.refusal("onboard", *options)
        assert "Have an administrator run in" in refused
        assert "CREATE PUBLICATION" in refused
        with all_.connect("music") as connection:
            for statement in all_.checkout.tidemark("slots", "create", "music", "--sql").splitlines():
                connection.execute(statement.encode())
        all_.is_on_board("music", all_.onboard(*options), 11)
        (slot,) = json.loads(all_.checkout.tidemark("slots", "list", "music", "--json"))
        assert slot["streams"] == ["public-Album", "public-Track"]
        with all_.connect("music") as connection:
            connection.execute("""update "Album" set "Title" = 'by the log' where "AlbumId" = 1""")
        all_.checkout.tidemark("run", "tap-music", "target-music")
        assert all_.checkout.rows("warehouse", """select "Title" from raw_music."Album" where "AlbumId" = 1""") == [
            ("by the log",)
        ]
        said = all_.checkout.tidemark("source", "retire", "music")
        assert "`tidemark slots drop tidemark_tap_music --source music`" in said
        all_.checkout.tidemark("slots", "drop", "tidemark_tap_music", "--source", "music", "--yes")


@pytest.mark.long
def test_slots_create_publishes_the_conditions_of_streams_and_brings_them_up_to_date(project):
    definition = project.root / "extract" / "extractors.meltano.yml"
    text = definition.read_text()
    for name in ("orders", "order_items"):
        text = text.replace(f"public-{name}: *incremental", f"public-{name}: {{replication-method: LOG_BASED}}")
    definition.write_text(text)
    project.refusal("slots", "create")
    project.tidemark("down")
    project.tidemark("up")

    def where(condition: str) -> None:
        with (project.root / ".env").open("a") as file:
            file.write(f"TAP_POSTGRES_WHERE='{json.dumps({'public-orders': condition})}'\n")

    where("shipping_fee > 1")
    assert "uses shipping_fee, which the log does not have for each change" in project.refusal("slots", "create")
    where("now() is not null")
    assert "mutable functions are not allowed" in project.refusal("slots", "create")
    where("order_id > 10")
    assert 'FOR TABLE "public"."order_items", "public"."orders" WHERE ((order_id > 10))' in project.tidemark(
        "slots", "create"
    )
    assert "has all that its LOG_BASED streams need" in project.tidemark("slots", "create")
    project.extract_and_load()
    project.tidemark("reconcile", "--repair")
    assert project.rows("warehouse", "select min(order_id) from raw.orders where _sdc_deleted_at is null") == [(11,)]

    published = "select prrelid::regclass::text, xmin::text from pg_publication_rel"
    before = dict(project.rows("source", published))
    where("order_id > 5")
    assert "publishes 2 tables, 1 of them with another condition" in project.tidemark("slots", "create")
    after = dict(project.rows("source", published))
    assert {name for name in after if before[name] != after[name]} == {"orders"}
    project.tidemark("slots", "repair")
    project.extract_and_load()
    assert project.rows("warehouse", "select min(order_id) from raw.orders where _sdc_deleted_at is null") == [(6,)]
