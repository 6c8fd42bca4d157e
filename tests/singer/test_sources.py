"""Every kind of source table is loaded correctly, or refused with a line that says why."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import subprocess
import time

import psycopg
import pytest

from tests import programs
from tests.programs import TAP, TARGET
from tests.singer.conftest import FULL_TABLE, INCREMENTAL

ORDERS = """
    create table orders (id bigint primary key, note text, amount numeric(12,2), updated_at timestamptz);
    insert into orders
    select n, 'note ' || n, n * 1.5, timestamptz '2026-01-01' + n * interval '1 second' from generate_series(1, 5000) n;
"""


# kinds of tables


def test_a_partitioned_table_is_loaded_as_one_table(pipe):
    pipe.do(
        """
        create table events (id int, day date, note text, updated_at timestamptz, primary key (id, day))
            partition by range (day);
        create table events_a partition of events for values from ('2026-01-01') to ('2026-02-01');
        create table events_b (note text, id int not null, dropped int, updated_at timestamptz, day date not null);
        alter table events_b drop column dropped;
        alter table events attach partition events_b for values from ('2026-02-01') to ('2026-03-01');
        create table events_rest partition of events default partition by range (id);
        create table events_rest_all partition of events_rest default;
        insert into events select n, date '2026-01-01' + n % 90, 'n' || n, now() from generate_series(1, 3000) n;
        """
    )
    assert {stream["tap_stream_id"] for stream in pipe.discover()["streams"]} == {"public-events"}
    pipe.tap["chunk_size_mb"] = 0.05
    state = pipe.sync({"public-events": INCREMENTAL}).ok().state
    assert pipe.rows("select count(*), count(distinct (id, day)), count(note) from raw.events") == [(3000, 3000, 3000)]
    pipe.do("update events set note = 'moved', day = day + 31, updated_at = now() where id = 1")
    pipe.sync({"public-events": INCREMENTAL}, state).ok()
    assert pipe.rows("select count(*) from raw.events where note = 'moved'") == [(1,)]


def test_the_discovery_before_each_run_starts_without_the_sdk(pipe):
    pipe.do("create table orders (id int primary key)")
    config, _ = pipe.configs()
    program = (
        "import sys; from singer_postgres.tap.entry import main; "
        "main(); assert 'singer_sdk' not in sys.modules, 'the SDK takes three quarters of a second'"
    )
    # as Meltano calls it
    arguments = ["--config", config, "--state", pipe.directory / "state.json", "--discover"]
    done = subprocess.run(
        [TAP.with_name("python"), "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pipe.discover()


def test_views_materialized_views_and_foreign_tables_are_read_in_full_or_by_a_configured_key(pipe):
    pipe.do(ORDERS + "create view big as select * from orders where id > 4000; create materialized view m as table big")
    keyed = {**INCREMENTAL, "table-key-properties": ["id"]}
    pipe.sync({"public-big": keyed, "public-m": FULL_TABLE}).ok()
    assert pipe.rows("select (select count(*) from raw.big), (select count(*) from raw.m)") == [(1000, 1000)]
    assert "has no primary key" in pipe.sync({"public-big": INCREMENTAL}).refused("key_missing")


def test_rows_hidden_by_a_policy_are_not_missed_silently(pipe):
    pipe.do(ORDERS)
    pipe.do(
        """
        alter table orders enable row level security; create policy few on orders using (id < 10);
        do $$ begin create role reader login password 'reader'; exception when duplicate_object then end $$;
        grant select on orders to reader
        """
    )
    pipe.tap |= {"user": "reader", "password": "reader"}
    error = pipe.sync({"public-orders": INCREMENTAL}).refused("rows_hidden")
    assert "Row-level security hides rows of public.orders" in error
    assert "BYPASSRLS" in error


def test_a_table_that_may_not_be_read_is_named(pipe):
    pipe.do(ORDERS)
    pipe.do("do $$ begin create role reader login password 'reader'; exception when duplicate_object then end $$")
    pipe.tap |= {"user": "reader", "password": "reader"}
    assert "permission denied for" in pipe.sync({"public-orders": INCREMENTAL}).refused("permission_denied")


def test_a_table_that_is_locked_for_too_long_fails_with_its_name(pipe):
    pipe.do(ORDERS)
    pipe.tap["lock_timeout"] = 0.5
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    with pipe.source() as connection, connection.transaction():
        connection.execute("lock table orders in access exclusive mode")
        error = pipe.sync(catalog).refused("lock_busy")
    assert "Reading public-orders failed: its table was locked for longer than lock_timeout = 0.5 s, by pid " in error
    assert "lock table orders in access exclusive mode" in error


# rows that are hard to see


STAMPS = {
    "timestamptz": ("now() - interval '1 day'", "now()"),
    "timestamp": ("now() at time zone 'UTC' - interval '1 day'", "now() at time zone 'UTC'"),
    "date": ("(now() at time zone 'UTC')::date - 1", "(now() at time zone 'UTC')::date"),
    "bigint": ("41", "42"),
    "numeric": ("41.5", "41.6"),
    "text": ("'a'", "'b'"),
    "uuid": ("'00000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-0000-000000000002'"),
}


def test_a_replication_key_can_have_any_ordered_type(pipe):
    for type_, (first, _) in STAMPS.items():
        pipe.do(f"create table by_{type_} (id int primary key, stamp {type_})")
        pipe.do(f"insert into by_{type_} values (1, {first}), (2, {first})")
    pipe.tap["timestamp_timezone"] = "UTC"
    catalog = pipe.catalog(
        {f"public-by_{type_}": {"replication-method": "INCREMENTAL", "replication-key": "stamp"} for type_ in STAMPS}
    )
    state = pipe.sync(catalog).ok().state
    for type_, (_, second) in STAMPS.items():
        pipe.do(f"update by_{type_} set stamp = {second} where id = 2")
        pipe.do(f"insert into by_{type_} values (3, {second}), (4, null)")
    state = pipe.sync(catalog, state).ok().state
    same = "select array_agg(t::text order by id) from (select id, stamp::text from {}) t"
    with pipe.source() as connection:
        for type_ in STAMPS:
            there = connection.execute(same.format(f"by_{type_}")).fetchall()
            assert pipe.rows(same.format(f"raw.by_{type_}")) == there, type_
    again = pipe.sync(catalog, state).ok()
    assert "rows_updated" not in again.target_log


def test_a_row_without_a_stamp_is_read(pipe):
    pipe.do(ORDERS)
    state = pipe.sync({"public-orders": INCREMENTAL}).ok().state
    pipe.do("insert into orders values (9001, 'no stamp', 1, null)")
    pipe.sync({"public-orders": INCREMENTAL}, state).ok()
    assert pipe.rows("select note from raw.orders where id = 9001") == [("no stamp",)]


def test_one_row_from_the_future_does_not_stop_a_stream(pipe):
    pipe.do(ORDERS + "insert into orders values (9001, 'future', 1, '2099-01-01')")
    state = pipe.sync({"public-orders": INCREMENTAL}).ok().state
    pipe.do("insert into orders values (9002, 'now', 1, now()); update orders set note = 'put right' where id = 9001")
    pipe.sync({"public-orders": INCREMENTAL}, state).ok()
    assert pipe.rows("select note from raw.orders where id > 9000 order by id") == [("put right",), ("now",)]


def test_a_changed_table_is_read_in_chunks_of_bounded_size(pipe):
    pipe.do(ORDERS + "create index on orders (updated_at); analyze orders")
    state = pipe.sync({"public-orders": INCREMENTAL}).ok().state
    pipe.do("update orders set note = repeat('x', 200), updated_at = now()")
    # a wrong estimate, because nothing was analyzed since
    pipe.tap["chunk_size_mb"] = 0.1
    synced = pipe.sync({"public-orders": INCREMENTAL}, state, listen=True).ok()
    chunks = [m["encoding"] for m in synced.messages if m["type"] == "BATCH" and m["encoding"]["rows"]]
    assert len(chunks) > 5
    assert max(chunk["bytes"] for chunk in chunks) <= 0.1 * 2**20 + 300
    assert pipe.rows("select count(*) from raw.orders where note = repeat('x', 200)") == [(5000,)]


def test_a_new_column_in_the_source_is_added(pipe):
    pipe.do(ORDERS)
    state = pipe.sync({"public-orders": INCREMENTAL}).ok().state
    pipe.do("alter table orders add column city text; update orders set city = 'Oslo', updated_at = now() where id = 1")
    pipe.sync({"public-orders": INCREMENTAL}, state).ok()
    assert pipe.rows("select city from raw.orders where id in (1, 2) order by id") == [("Oslo",), (None,)]


# features that users ask for


def test_only_selected_columns_leave_the_source(pipe):
    pipe.do(ORDERS)
    pipe.sync({"public-orders": {**INCREMENTAL, "select": ["id", "amount"]}}).ok()
    assert [
        name
        for (name,) in pipe.rows(
            "select attname from pg_attribute where attrelid = 'raw.orders'::regclass and attnum > 0 "
            "and attname !~ '^_' order by attnum"
        )
    ] == ["id", "amount"]


def test_masked_values_never_leave_the_source(pipe):
    pipe.do(
        """
        create table people
            (id int primary key, email text, phone text, name text, born date,
             updated_at timestamptz default now());
        insert into people values
            (1, 'ann@example.com', '555-1', 'Ann', '1980-01-01'), (2, null, null, null, null)
        """
    )
    with pipe.source() as connection:
        connection.execute(f"alter database {connection.info.dbname} set standard_conforming_strings = off")
    masks = {"email": "sha256", "phone": "null", "name": "redact", "born": "null", "id": "sha256"}
    pipe.tap |= {"masks": {"public-people": masks}, "mask_secret": "pepper", "chunks_outstanding": 9}
    synced = pipe.sync({"public-people": INCREMENTAL}, listen=True).ok()
    key = hashlib.sha256(b"pepper").digest()
    masked = {text: hmac.new(key, text.encode(), "sha256").hexdigest() for text in ("ann@example.com", "1", "2")}
    assert set(pipe.rows("select id, email, phone, name, born from raw.people")) == {
        (masked["1"], masked["ann@example.com"], None, "[redacted]", None),
        (masked["2"], None, None, None, None),
    }
    assert "ann@example.com" not in json.dumps(synced.messages) + synced.tap_log + synced.target_log
    assert "pepper" not in json.dumps(synced.messages) + synced.tap_log
    # records have the same masks, so nothing is written
    pipe.tap["use_copy"] = False
    synced = pipe.sync({"public-people": INCREMENTAL}, listen=True).ok()
    assert "rows_updated" not in synced.target_log
    assert "ann@example.com" not in json.dumps(synced.messages)


def test_an_impossible_mask_is_refused(pipe):
    pipe.do(ORDERS)
    pipe.tap["masks"] = {"public-orders": {"note": "sha256"}}
    assert "set mask_secret" in pipe.sync({"public-orders": INCREMENTAL}).refused("setting_invalid")
    pipe.tap["mask_secret"] = "pepper"
    for columns, why in [
        ({"id": "null"}, "part of the key"),
        ({"note": "rot13"}, "'rot13' of public-orders.note is no mask; known are sha256"),
        ({"nowhere": "null"}, "no such column"),
    ]:
        pipe.tap["masks"] = {"public-orders": columns}
        assert why in pipe.sync({"public-orders": INCREMENTAL}).refused("setting_invalid")


def test_rows_can_be_chosen_by_a_where_clause(pipe):
    pipe.do(ORDERS)
    pipe.tap["where"] = {"public-orders": "id <= 100 or note = 'note 200' -- and no more"}
    state = pipe.sync({"public-orders": INCREMENTAL}).ok().state
    assert pipe.rows("select count(*) from raw.orders") == [(101,)]
    pipe.do("update orders set updated_at = now()")
    pipe.sync({"public-orders": INCREMENTAL}, state).ok()
    assert pipe.rows("select count(*) from raw.orders") == [(101,)]
    pipe.tap["where"] = {"public-orders": "no_such_column = 1"}
    assert "no_such_column" in pipe.sync({"public-orders": INCREMENTAL}).refused("object_undefined")


def test_a_table_without_a_key_is_doubled_only_if_the_settings_allow_it(pipe):
    pipe.do("create table log (line text, updated_at timestamptz); insert into log values ('a', now()), ('a', now())")
    assert "allow_duplicates" in pipe.sync({"public-log": INCREMENTAL}).refused("key_missing")
    pipe.tap["allow_duplicates"] = ["public-log"]
    pipe.sync({"public-log": INCREMENTAL}).ok()
    assert pipe.rows("select line from raw.log") == [("a",), ("a",)]


def test_two_tables_with_one_name_are_not_loaded_into_one(pipe):
    pipe.do(ORDERS + "create schema other; create table other.orders (like orders including all)")
    pipe.do("insert into other.orders select * from orders where id < 5")
    pipe.tap["filter_schemas"] = ["public", "other"]
    both = {"public-orders": FULL_TABLE, "other-orders": FULL_TABLE}
    assert "would go into the same table" in pipe.sync(both).refused("name_taken")
    pipe.target["default_target_schema"] = None
    pipe.sync(both).ok()
    assert pipe.rows("select (select count(*) from public.orders), (select count(*) from other.orders)") == [(5000, 4)]


def test_stream_maps_get_records_and_the_log_says_so(pipe):
    pipe.do(ORDERS)
    pipe.tap["stream_maps"] = {"public-orders": {"note": "note.upper()"}}
    synced = pipe.sync({"public-orders": INCREMENTAL}, listen=True).ok()
    assert "BATCH" not in {message["type"] for message in synced.messages}
    assert "reason=stream_maps are set" in synced.tap_log
    assert pipe.rows("select count(*) from raw.orders where note like 'NOTE %'") == [(5000,)]


def test_chunks_that_a_mapper_could_not_change_are_refused(pipe):
    pipe.do(ORDERS)
    synced = pipe.sync({"public-orders": INCREMENTAL}, listen=True).ok()
    lines = pipe.directory / "mapped"
    for message in synced.messages:
        message.pop("pgcopy", None)
    lines.write_text("\n".join(map(json.dumps, synced.messages)))
    assert "a mapper?" in target_alone(pipe, lines)
    pipe.target["stream_maps"] = {"public-orders": {"note": "note.upper()"}}
    assert "stream_maps of this target does not apply" in pipe.sync({"public-orders": INCREMENTAL}).refused(
        "setting_invalid"
    )


def test_messages_written_to_a_file_are_records(pipe):
    pipe.do(ORDERS)
    catalog = pipe._file("catalog.json", pipe.catalog({"public-orders": INCREMENTAL}))
    with (pipe.directory / "out").open("w") as out:
        subprocess.run(
            [TAP, "--config", pipe.configs()[0], "--catalog", catalog],
            stdout=out,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    assert (pipe.directory / "out").read_text().count('"RECORD"') == 5000


def target_alone(pipe, lines) -> str:
    """Feed the target messages from a file; return its error."""
    done = programs.run([TARGET, "--config", pipe.configs()[1], "--input", lines])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if "| ERROR" in line]
    return error


@pytest.mark.long
def test_a_role_whose_idle_sessions_are_ended_can_still_read(pipe):
    pipe.do("create table orders (id int primary key, updated_at timestamptz default now());")
    pipe.do("insert into orders select generate_series(1, 30000)")
    name = psycopg.conninfo.conninfo_to_dict(pipe.source_url)["dbname"]
    for timeout in ("idle_in_transaction_session_timeout", "idle_session_timeout"):
        pipe.do(f"alter database {name} set {timeout} = 500")
    pipe.tap |= {"chunk_size_mb": 0.05, "chunks_outstanding": 1}
    # the target stalls longer than the timeout, so the tap does too
    tap, target = pipe.start({"public-orders": INCREMENTAL})
    target.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    target.send_signal(signal.SIGCONT)
    pipe.finish([tap, target]).ok()
    assert pipe.rows("select count(*) from raw.orders") == [(30000,)]
