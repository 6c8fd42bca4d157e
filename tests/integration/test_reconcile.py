"""`tidemark reconcile` finds and repairs differences row by row."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from singer_postgres.core.warehouse.connections import WarehouseConnector
from singer_postgres.core.warehouse.run_lock import RunLock
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

# keys of several columns, with odd characters, equal but not identical; a FULL_TABLE stream; one without a key
TABLES = """
    create table plain (id bigint primary key, note text, amount numeric(12,2), at timestamptz default now(),
        updated_at timestamptz not null);
    insert into plain select n, 'note ' || n, n, now(), now() - interval '1 day' from generate_series(1, 3000) n;
    create table composite (a text, b numeric, flag boolean, kind mood, bytes bytea, updated_at timestamptz,
        primary key (a, b));
    insert into composite
    select 'Æ"'', ' || chr(31) || n % 7, n / 10.0, n % 2 = 0, 'glad', '\\xff', now() - interval '1 day'
    from generate_series(1, 300) n;
    create table whole (id int primary key, note text);
    insert into whole select n, 'note ' || n from generate_series(1, 100) n;
    create table ranged (id bigint primary key, note text, updated_at timestamptz not null);
    insert into ranged select n, 'note', now() - interval '1 day' from generate_series(1, 3999) n;
    create table heap (note text);
    insert into heap select 'note ' || n % 10 from generate_series(1, 100) n;
"""
STREAMS = ("public-plain", "public-composite", "public-whole", "public-heap", "public-ranged")


@pytest.fixture(scope="module")
def loaded() -> Iterator[Checkout]:
    """The tables, loaded once. Each test leaves source and warehouse equal."""
    for checkout in make_checkout(stage="up"):
        path = checkout.root / "extract" / "extractors.meltano.yml"
        config = yaml.safe_load(path.read_text())
        (tap,) = config["plugins"]["extractors"]
        incremental = {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
        tap["select"] = [f"{stream}.*" for stream in STREAMS]
        tap["metadata"] = {f"public-{name}": incremental for name in ("plain", "composite", "ranged")}
        tap["config"] = {
            "masks": {"public-plain": {"note": "sha256"}},
            "mask_secret": "secret",
            "where": {"public-plain": "id %% 100 <> 50 and note not like '%%x'".replace("%%", "%")},
        }
        path.write_text(yaml.safe_dump(config))
        path = checkout.root / "load" / "loaders.meltano.yml"
        config = yaml.safe_load(path.read_text())
        config["plugins"]["loaders"][0].setdefault("config", {})["raw_partitions"] = {
            "public-ranged": {"by": "range", "width": 1000}
        }
        path.write_text(yaml.safe_dump(config))
        with checkout.connect("source") as connection:
            connection.execute("create type mood as enum ('glad')")
            connection.execute(TABLES)
            connection.execute("analyze")
        checkout.extract_and_load()
        yield checkout


def do(checkout: Checkout, side: str, *statements: str) -> None:
    with checkout.connect(side) as connection:
        for statement in statements:
            connection.execute(statement)


def reconcile(
    checkout: Checkout, *arguments: str, env: dict[str, str] | None = None
) -> tuple[int, dict[str, dict[str, Any]]]:
    done = checkout.run("tidemark", "reconcile", "--json", *arguments, env=env)
    assert "Traceback" not in done.stderr
    assert done.stdout, done.stderr
    return done.returncode, {result["stream"]: result for result in json.loads(done.stdout)}


ROWS_READ = """
    select relname, seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_all_tables where relname like 'ranged\\_p%'
"""


def test_a_table_in_ranges_is_compared_and_repaired_range_by_range(loaded):
    before = dict(loaded.rows("warehouse", ROWS_READ))
    assert set(before) == {"ranged_p0", "ranged_p1000", "ranged_p2000", "ranged_p3000"}
    assert_equal(loaded)
    compared = dict(loaded.rows("warehouse", ROWS_READ))
    do(
        loaded,
        "warehouse",
        "update raw.ranged set note = 'other' where id = 1500; delete from raw.ranged where id = 1501",
    )
    # a key for which there is no range yet
    do(loaded, "source", "insert into ranged values (7500, 'new', now() - interval '1 day')")
    status, results = reconcile(loaded, "public-ranged", "--repair")
    assert status == 0
    found = results["public-ranged"]
    assert (found["missing"], found["different"], found["extra"]) == (2, 1, 0)
    assert found["repaired"] == {"inserted": 2, "updated": 1, "deleted": 0}
    after = dict(loaded.rows("warehouse", ROWS_READ))
    # each comparison reads each range once, and the repair looks at rows of one of them alone; the planner reads some
    for name in ("ranged_p0", "ranged_p2000", "ranged_p3000"):
        assert 999 <= compared[name] - before[name] < 1010
        assert 999 <= after[name] - compared[name] < 1010
    assert after["ranged_p1000"] - compared["ranged_p1000"] > 1998
    assert "ranged_p7000" in after
    assert_equal(loaded)
    do(loaded, "source", "delete from ranged where id = 7500")
    do(loaded, "warehouse", "delete from raw.ranged where id = 7500")


def assert_equal(checkout: Checkout) -> None:
    status, results = reconcile(checkout)
    assert status == 0, results
    assert set(results) == set(STREAMS)


def test_a_comparison_right_after_a_load_finds_no_difference(loaded):
    assert_equal(loaded)
    assert "3,0" not in loaded.tidemark("reconcile", "public-whole")


@pytest.mark.long
def test_rows_before_the_start_date_are_not_a_difference(loaded):
    do(loaded, "source", "delete from plain where id = 1", "update plain set note = 'changed' where id = 2")
    tomorrow = {"TAP_POSTGRES_START_DATE": "2999-01-01"}
    status, results = reconcile(loaded, "public-plain", env=tomorrow)
    assert (status, results["public-plain"]["missing"], results["public-plain"]["extra"]) == (0, 0, 0)
    status, results = reconcile(loaded, "public-plain", env={"TAP_POSTGRES_START_DATE": "2020-01-01"})
    assert (status, results["public-plain"]["extra"], results["public-plain"]["different"]) == (1, 1, 1)
    reconcile(loaded, "public-plain", "--repair")


def test_changes_that_no_run_sees_are_found_and_repaired_row_by_row(loaded):
    chance = random.Random(7)
    picked = chance.sample([n for n in range(1, 3001) if n % 100 != 50], 40)
    gone, changed, lost, spoilt = picked[:10], picked[10:20], picked[20:30], picked[30:]
    do(
        loaded,
        "source",
        f"delete from plain where id = any('{{{','.join(map(str, gone))}}}')",
        # without a new stamp
        f"update plain set note = 'changed' where id = any('{{{','.join(map(str, changed))}}}')",
    )
    do(
        loaded,
        "warehouse",
        f"delete from raw.plain where id = any('{{{','.join(map(str, lost))}}}')",
        f"update raw.plain set amount = -1 where id = any('{{{','.join(map(str, spoilt))}}}')",
    )
    touched = ",".join(map(str, picked))
    others = f"select id, xmin::text, ctid::text from raw.plain where id <> all('{{{touched}}}') order by id"
    before = loaded.rows("warehouse", others)
    deleted = "select id from raw.plain where _sdc_deleted_at is not null order by id"
    earlier = loaded.rows("warehouse", deleted)
    status, results = reconcile(loaded)
    plain = results["public-plain"]
    assert (status, loaded.logged_code()) == (1, "rows_differ")
    assert (plain["missing"], plain["extra"], plain["different"], plain["pending"]) == (10, 10, 20, 0)
    assert all(results[stream]["equal"] for stream in STREAMS[1:])
    assert plain["examples"]["extra"] == [[str(key)] for key in sorted(map(str, gone))[:3]]
    status, results = reconcile(loaded, "public-plain", "--repair")
    assert status == 0
    assert results["public-plain"]["repaired"] == {"inserted": 10, "updated": 20, "deleted": 10}
    assert loaded.rows("warehouse", others) == before
    marked = loaded.rows("warehouse", deleted)
    assert [id_ for (id_,) in marked if (id_,) not in earlier] == sorted(gone)
    assert_equal(loaded)
    # one comes back unchanged
    do(loaded, "source", f"insert into plain values ({gone[0]}, 'back', 1, now(), now() - interval '1 day')")
    assert reconcile(loaded, "--repair")[0] == 0
    assert loaded.rows("warehouse", f"select _sdc_deleted_at from raw.plain where id = {gone[0]}") == [(None,)]
    assert_equal(loaded)


@pytest.mark.long
def test_a_repair_of_a_table_that_dbt_tracks_logs_the_values_that_it_replaces(loaded):
    do(
        loaded,
        "warehouse",
        "select tidemark.track_changes('raw.plain', '{id, amount}', interval '7 days')",
        "delete from raw.plain where id = 5",
        "update raw.plain set amount = -1, _tidemark_loaded_xid = pg_current_xact_id() where id = 3",
    )
    do(loaded, "source", "delete from plain where id = 4")
    log = """
        select (old ->> 'id')::int, (old ->> 'amount')::numeric, (new ->> 'amount')::numeric from raw._tidemark_changes
    """
    assert loaded.rows("warehouse", f"{log} order by xid") == [(5, 5, None), (3, 3, None)]
    do(loaded, "warehouse", "delete from raw._tidemark_changes")
    assert reconcile(loaded, "public-plain", "--repair")[1]["public-plain"]["repaired"] == {
        "inserted": 1,
        "updated": 1,
        "deleted": 1,
    }
    # the inserted row and the marked one have a new transaction; so have the new values
    assert loaded.rows("warehouse", log) == [(3, -1, None)]
    assert_equal(loaded)
    kinds = ("insert", "update", "delete", "truncate")
    do(loaded, "warehouse", *(f"drop trigger _tidemark_logs_{kind} on raw.plain" for kind in kinds))


@pytest.mark.long
def test_a_repair_that_repaired_nothing_says_so_and_its_advice_works(loaded):
    do(loaded, "source", "update plain set amount = 7.25 where id = 7")
    do(loaded, "warehouse", "alter table raw.plain alter amount type integer")
    status, results = reconcile(loaded, "public-plain", "--repair")
    result = results["public-plain"]
    # 1.00 is not the same text as 1
    assert (status, result["equal"], result["left"]["different"] > 0) == (1, False, True)
    assert "amount is integer and in the source numeric(12,2)" in result["left"]["why"]
    assert "`tidemark state rewind public-plain --to beginning`" in result["left"]["why"]
    done = loaded.run("tidemark", "reconcile", "public-plain", "--repair")
    assert done.returncode == 1
    assert "not repaired, still " in done.stdout
    loaded.tidemark("state", "rewind", "public-plain", "--to", "beginning")
    loaded.extract_and_load()
    assert reconcile(loaded, "public-plain")[0] == 0


@pytest.mark.long
def test_keys_of_any_kind_are_told_apart(loaded):
    do(loaded, "source", "delete from composite where b = 1.3", "update composite set flag = not flag where b = 2.0")
    do(loaded, "warehouse", "delete from raw.composite where b = 3.1", "update raw.whole set note = null where id = 1")
    _, results = reconcile(loaded)
    found = results["public-composite"]
    assert (found["missing"], found["extra"], found["different"]) == (1, 1, 1)
    assert found["examples"]["missing"] == [["Æ\"', \x1f3", "3.1"]]
    assert results["public-whole"]["different"] == 1
    assert reconcile(loaded, "public-composite", "public-whole", "--repair")[0] == 0
    assert_equal(loaded)


@pytest.mark.long
def test_rows_that_the_next_run_will_load_are_not_a_difference(loaded):
    do(
        loaded,
        "source",
        "insert into plain values (9001, 'new', 1, now(), now())",
        "update plain set amount = 7, updated_at = now() where id = 7",
        "insert into composite values ('null stamp', 1, true, 'glad', null, null)",
    )
    status, results = reconcile(loaded)
    assert status == 0
    assert [results[stream]["pending"] for stream in STREAMS] == [2, 1, 0, 0, 0]
    loaded.extract_and_load()
    assert_equal(loaded)


@pytest.mark.long
def test_since_compares_only_recent_rows_and_finds_those_with_another_stamp(loaded):
    do(loaded, "source", "update plain set amount = 88 where id = 8", "delete from plain where id = 9")
    do(loaded, "warehouse", "update raw.plain set updated_at = '2001-01-01' where id = 10")
    do(loaded, "source", "update plain set amount = 9, updated_at = '2001-01-01' where id = 11")
    since = loaded.rows("source", "select now() - interval '25 hours'")[0][0].isoformat()
    _, results = reconcile(loaded, "public-plain", "--since", since)
    assert {key: results["public-plain"][key] for key in ("missing", "extra", "different")} == {
        "missing": 0,
        "extra": 1,
        "different": 3,
    }
    assert results["public-plain"]["rows"]["source"] < 3000
    later = loaded.rows("source", "select now() + interval '1 hour'")[0][0].isoformat()
    assert reconcile(loaded, "public-plain", "--since", later)[0] == 0
    assert "--since needs INCREMENTAL" in loaded.run("tidemark", "reconcile", "public-whole", "--since", "1").stdout
    assert reconcile(loaded, "public-plain", "--repair")[0] == 0
    assert_equal(loaded)


def test_a_stream_without_a_key_is_counted_and_left_to_a_run(loaded):
    gone = "delete from heap where ctid = (select min(ctid) from heap)"
    do(loaded, "source", "insert into heap values ('new')", gone)
    status, results = reconcile(loaded)
    assert (results["public-heap"]["missing"], results["public-heap"]["extra"]) == (1, 1)
    assert status == 1
    assert "has no key" in reconcile(loaded, "public-heap", "--repair")[1]["public-heap"]["error"]
    loaded.extract_and_load()
    assert_equal(loaded)


def test_a_repair_that_would_delete_many_rows_is_refused_unless_asked_for(loaded):
    do(loaded, "source", "create table kept as select * from plain", "delete from plain where id % 10 = 0")
    error = reconcile(loaded, "public-plain", "--repair")[1]["public-plain"]["error"]
    assert "would be marked as deleted" in error
    assert "--allow-deletes" in error
    do(loaded, "source", "truncate plain")
    error = reconcile(loaded, "public-plain", "--repair", "--allow-deletes", "99%")[1]["public-plain"]["error"]
    assert "the source has no row" in error
    assert loaded.rows("warehouse", "select count(*) > 2900 from raw.plain where _sdc_deleted_at is null") == [(True,)]
    do(loaded, "source", "insert into plain select * from kept", "drop table kept")
    assert_equal(loaded)
    assert "write a percentage" in loaded.refusal("reconcile", "--allow-deletes", "many")


def test_streams_that_can_not_be_compared_are_reported(loaded):
    assert "No such stream is selected: public-nothing" in loaded.refusal("reconcile", "public-nothing")
    do(
        loaded,
        "source",
        "create role reader login password 'secret'; grant select on all tables in schema public to reader",
        "alter table plain enable row level security",
    )
    reader = {"TAP_POSTGRES_USER": "reader", "TAP_POSTGRES_PASSWORD": "secret"}
    done = loaded.run("tidemark", "reconcile", "--json", "public-plain", env=reader)
    assert "row-level security hides rows" in done.stdout
    do(loaded, "source", "alter table plain disable row level security")
    done = loaded.run("tidemark", "reconcile", "--json", env={"TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA": "elsewhere"})
    assert done.returncode == 1
    assert all("has not been loaded into elsewhere" in result["error"] for result in json.loads(done.stdout))


def test_a_role_that_may_read_only_the_selected_columns_compares_them(loaded):
    do(
        loaded,
        "source",
        "create role columns_alone login password 'secret'",
        "alter table whole add hidden text",
        "grant select (id, note) on whole to columns_alone",
    )
    path = loaded.root / "extract" / "extractors.meltano.yml"
    before = path.read_text()
    path.write_text(before.replace("- public-whole.*", "- public-whole.id\n      - public-whole.note"))
    own = {"TAP_POSTGRES_USER": "columns_alone", "TAP_POSTGRES_PASSWORD": "secret"}
    try:
        assert path.read_text() != before
        status, results = reconcile(loaded, "public-whole", env=own)
        assert status == 0, results
    finally:
        path.write_text(before)
        do(loaded, "source", "alter table whole drop hidden")


def test_a_repair_does_not_wait_for_a_run_and_says_that_one_is_active(loaded):
    do(loaded, "warehouse", "update raw.plain set amount = -2 where id = 3")
    lock = RunLock(WarehouseConnector(lambda: {"conninfo": loaded.urls["warehouse"]}, "raw"))
    lock.take("public-plain", "raw", "plain")
    try:
        done = loaded.run("tidemark", "reconcile", "--repair")
        assert done.returncode == 75
        assert "Another run is loading public-plain" in done.stderr
    finally:
        lock.close()
    assert reconcile(loaded, "--repair")[0] == 0
    assert_equal(loaded)


WRITTEN = """
    select stream, since is not null, rows_source, rows_warehouse, missing, different, extra, pending, repaired, error
    from raw._tidemark_reconciles where run_id = '{}' order by stream
"""


@pytest.mark.long
def test_the_result_for_each_stream_is_recorded_or_why_it_could_not_be_compared(loaded):
    do(
        loaded,
        "source",
        "update whole set note = 'changed' where id = 5",
        "insert into whole values (200, 'new')",
        "alter table composite enable row level security",
        "create role blind login password 'secret'; grant select on all tables in schema public to blind",
    )
    blind = {"TAP_POSTGRES_USER": "blind", "TAP_POSTGRES_PASSWORD": "secret", "TIDEMARK_RUN_ID": "one"}
    reconcile(loaded, "public-whole", "public-composite", env=blind)
    do(loaded, "source", "alter table composite disable row level security")
    (failed, found) = loaded.rows("warehouse", WRITTEN.format("one"))
    assert failed[:9] == ("public-composite", False, *[None] * 7)
    assert "row-level security hides rows" in failed[9]
    assert found == ("public-whole", False, 101, 100, 1, 1, 0, 0, None, None)
    reconcile(loaded, "public-whole", "--repair", env={"TIDEMARK_RUN_ID": "two"})
    assert loaded.rows("warehouse", WRITTEN.format("two")) == [("public-whole", False, 101, 100, 1, 1, 0, 0, 2, None)]
    reconcile(loaded, "public-plain", "--since", "2100-01-01T00:00:00Z", env={"TIDEMARK_RUN_ID": "three"})
    assert loaded.rows("warehouse", WRITTEN.format("three")) == [("public-plain", True, *[0] * 6, None, None)]
    of_run = "select source from raw._tidemark_runs union select source from raw._tidemark_reconciles"
    assert len(loaded.rows("warehouse", of_run)) == 1


@pytest.mark.long
def test_results_of_comparisons_are_kept_as_long_as_run_records(loaded):
    old = "update raw._tidemark_reconciles set run_id = 'old', compared_at = now() - interval '{} days'"
    count = "select count(*) from raw._tidemark_reconciles where run_id = 'old'"
    assert reconcile(loaded, "public-whole")[0] == 0
    do(loaded, "warehouse", old.format(89))
    assert reconcile(loaded, "public-whole")[0] == 0
    assert loaded.rows("warehouse", f"{count} and stream = 'public-whole'") != [(0,)]
    assert reconcile(loaded, "public-whole", env={"TARGET_POSTGRES_HISTORY_DAYS": "30"})[0] == 0
    assert loaded.rows("warehouse", f"{count} and stream = 'public-whole'") == [(0,)]
    before = loaded.rows("warehouse", "select count(*) from raw._tidemark_reconciles")
    assert reconcile(loaded, "public-whole", env={"TARGET_POSTGRES_HISTORY_DAYS": "0"})[0] == 0
    assert loaded.rows("warehouse", "select count(*) from raw._tidemark_reconciles") == before


@pytest.mark.parametrize(
    "there", [True, pytest.param(False, marks=pytest.mark.long)], ids=["a table of another's", "a schema of another's"]
)
def test_a_read_only_role_can_compare_and_one_warning_says_that_nothing_is_recorded(loaded, there):
    do(
        loaded,
        "warehouse",
        *([] if there else ["drop table raw._tidemark_reconciles"]),
        "drop role if exists looker",
        "create role looker login password 'secret' in role pg_read_all_data",
    )
    looker = {"TARGET_POSTGRES_USER": "looker", "TARGET_POSTGRES_PASSWORD": "secret"}
    done = loaded.run("tidemark", "reconcile", "--json", env=looker)
    assert done.returncode == 0, done.stderr
    assert [result["equal"] for result in json.loads(done.stdout)] == [True] * len(STREAMS)
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: The results are not recorded in raw._tidemark_reconciles: ")
    assert "permission denied" in warning
    assert_equal(loaded)
