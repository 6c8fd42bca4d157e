"""An error in one stream's statements ends that stream, and the others are loaded."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests import programs
from tests.programs import TAP
from tests.singer.conftest import FULL_TABLE, INCREMENTAL

GOOD = "create table good (id int primary key, updated_at timestamptz default now()); insert into good values (1), (2);"
BAD = """
    create materialized view a_unpopulated as select 1 as id with no data;
    create function raises(code text) returns int language plpgsql as
        $$ begin raise exception 'raised %', code using errcode = code; end $$;
    create view a_raises as select public.raises('P0001') as id;
    create view a_internal as select public.raises('XX000') as id;
    create view a_corrupt as select public.raises('XX001') as id;
    create view a_lost as select public.raises('08006') as id;
    create view a_shut as select public.raises('57P01') as id;
    create view a_full as select public.raises('53100') as id;
    create extension postgres_fdw;
    create server gone foreign data wrapper postgres_fdw options (host '127.0.0.1', port '1', dbname 'x');
    create user mapping for public server gone options (user 'x', password 'x');
    create foreign table a_foreign (id int) server gone;
    create view a_huge as
        select repeat('x', 600000000)::text as one, repeat('y', 600000000)::text as other where random() >= 0;
"""
BAD_ONES = ("unpopulated", "raises", "internal", "corrupt", "lost", "shut", "full", "foreign")


@pytest.mark.long
def test_any_error_of_one_streams_statements_leaves_the_others_unaffected_and_is_not_retried(pipe):
    pipe.do(GOOD + BAD)
    began = time.monotonic()
    streams = {f"public-a_{name}": FULL_TABLE for name in (*BAD_ONES, "huge")}
    synced = pipe.sync({**streams, "public-good": INCREMENTAL})
    assert synced.tap_status == 1
    assert "Traceback" not in synced.tap_log
    assert pipe.rows("select count(*) from raw.good") == [(2,)]
    last = synced.tap_log.strip().splitlines()[-1]
    for name in streams:
        assert f" {name}: " in last, synced.tap_log
    assert "is retried" not in synced.tap_log
    assert {failure["stream"]: failure["code"] for failure in synced.failures if "stream" in failure} == {
        **dict.fromkeys(streams, "statement_failed"),
        "public-a_full": "disk_full",
        "public-a_huge": "limit_exceeded",
    }
    assert time.monotonic() - began < 60
    assert synced.state["bookmarks"].keys() >= {"public-good"}


def test_any_error_of_one_streams_rows_in_the_warehouse_leaves_the_others_unaffected(pipe):
    pipe.do(GOOD + "create table bad as table good; alter table bad add primary key (id)")
    catalog = pipe.catalog({"public-bad": INCREMENTAL, "public-good": INCREMENTAL})
    state = pipe.sync(catalog).ok().state
    with pipe.warehouse() as connection:
        connection.execute(
            "create function refuse() returns trigger language plpgsql as "
            "$$ begin raise exception 'refused' using errcode = '08006'; end $$; "
            "create trigger refuse before insert or update on raw.bad for each row execute function refuse()"
        )
    pipe.do("update bad set updated_at = now()")
    for number, settings in enumerate(({}, {"use_copy": False}), start=3):
        pipe.tap |= settings
        pipe.do(f"insert into good values ({number})")
        synced = pipe.sync(catalog, state)
        assert synced.target_status == 1
        assert "Traceback" not in synced.target_log
        assert "refused" in synced.target_log.strip().splitlines()[-1]
        assert pipe.rows("select (select count(*) from raw.bad), (select max(id) from raw.good)") == [(2, number)]
        assert synced.state["bookmarks"]["public-bad"] == state["bookmarks"]["public-bad"]


def test_a_discovery_during_ddl_describes_existing_tables(pipe):
    pipe.do(GOOD)
    stop = threading.Event()

    def alter() -> None:
        with pipe.source() as connection:
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute(
                    f"create type mood_{number} as enum ('a'); create table t_{number} (id int, mood mood_{number}); "
                    f"alter table t_{number} add column late mood_{number} default 'a'"
                )
                connection.execute(f"drop table t_{number}; drop type mood_{number}")

    thread = threading.Thread(target=alter)
    thread.start()
    try:
        for _ in range(5):
            assert "public-good" in {stream["tap_stream_id"] for stream in pipe.discover()["streams"]}
    finally:
        stop.set()
        thread.join()


def test_names_that_are_not_text_do_not_stop_discovery_and_are_reported(ascii_pipe):
    pipe = ascii_pipe
    with pipe.source(client_encoding="SQL_ASCII") as connection:
        connection.execute(GOOD.encode())
        connection.execute(b'create table "caf\xe9" (id int); create table columns (id int, "caf\xe9" int)')
    done = programs.run([TAP, "--config", pipe.configs()[0], "--discover"])
    assert done.returncode == 0
    assert [stream["tap_stream_id"] for stream in json.loads(done.stdout)["streams"]] == ["public-good"]
    assert r"public.caf\351 is left out of the catalog" in done.stderr
    assert "public.columns is left out of the catalog" in done.stderr
    pipe.sync({"public-good": INCREMENTAL}).ok()


def test_a_selected_table_that_is_gone_fails_and_the_others_are_loaded(pipe):
    pipe.do(GOOD + "".join(f"create table {name} as table good; " for name in ("dropped", "renamed", "moved")))
    streams = {f"public-{name}": FULL_TABLE for name in ("good", "dropped", "renamed", "moved")}
    streams["public-renamed"] = streams["public-moved"] = INCREMENTAL
    pipe.do("alter table renamed add primary key (id); alter table moved add primary key (id)")
    pipe.env = {"MELTANO_EXTRACT__SELECT": json.dumps([f"{stream}.*" for stream in streams])}
    state = pipe.sync(streams).ok().state
    pipe.do("drop table dropped; alter table renamed rename to other; create schema s; alter table moved set schema s")
    pipe.do("insert into good values (3)")
    synced = pipe.sync(streams, state)
    assert (synced.tap_status, synced.target_status) == (1, 0)
    assert pipe.rows("select (select count(*) from raw.good), (select count(*) from raw.dropped)") == [(3, 2)]
    last = synced.tap_log.strip().splitlines()[-1]
    assert "public-dropped is selected, and the source has no such table" in last
    assert "its table is called public.other now" in last
    assert "its table is called s.moved now" in last
    assert synced.state["bookmarks"]["public-renamed"] == state["bookmarks"]["public-renamed"]
    pipe.env["MELTANO_EXTRACT__SELECT_FILTER"] = '["public-good"]'
    pipe.sync({"public-good": FULL_TABLE}, state).ok()


def test_unselected_streams_cost_nothing_and_small_streams_share_state_messages(pipe):
    pipe.do(GOOD + "".join(f"create table t_{number} (id int); " for number in range(20)))
    pipe.do("".join(f"create table s_{number} (id int primary key, at timestamptz); " for number in range(12)))
    key = {"replication-method": "INCREMENTAL", "replication-key": "at"}
    streams = {"public-good": INCREMENTAL, **{f"public-s_{number}": key for number in range(12)}}
    state = pipe.sync(streams).ok().state
    synced = pipe.sync(streams, state, listen=True).ok()
    assert "t_1" not in synced.tap_log
    assert sum(message["type"] == "STATE" for message in synced.messages) < len(streams) / 2
    assert synced.state["bookmarks"].keys() == streams.keys()


def test_a_function_that_needs_a_search_path_is_reported_and_the_advice_works(pipe):
    pipe.do(
        """
        create table rates (id int, rate int); insert into rates values (1, 7);
        create function rate_of(i int) returns int language sql stable as 'select rate from rates where id = i';
        create function rate_of_pl(i int) returns int language plpgsql as
            'begin return (select rate from rates where id = i); end';
        create view a as select id, public.rate_of(id) as rate, public.rate_of_pl(id) as other from rates
        """
    )
    synced = pipe.sync({"public-a": FULL_TABLE})
    assert synced.tap_status == 1
    assert "ALTER FUNCTION … SET search_path = public" in synced.tap_log.strip().splitlines()[-1]
    assert synced.codes == {"object_undefined"}
    pipe.do("alter function rate_of set search_path = public; alter function rate_of_pl set search_path = public")
    pipe.sync({"public-a": FULL_TABLE}).ok()
    assert pipe.rows("select rate, other from raw.a") == [(7, 7)]


def test_a_row_that_is_not_text_fails_its_stream_and_deselecting_its_column_helps(ascii_pipe):
    pipe = ascii_pipe
    with pipe.source(client_encoding="SQL_ASCII") as connection:
        connection.execute(GOOD.encode())
        connection.execute(b"create table bad (id int primary key, note text, updated_at timestamptz default now())")
        connection.execute(b"insert into bad values (1, 'fine'), (2, E'caf\\xe9')")
    synced = pipe.sync({"public-bad": INCREMENTAL, "public-good": INCREMENTAL})
    assert (synced.tap_status, synced.target_status) == (1, 0)
    last = synced.tap_log.strip().splitlines()[-1]
    assert "Reading public-bad failed: invalid byte sequence" in last
    assert "deselect its column" in last
    assert synced.codes == {"encoding_invalid"}
    assert pipe.rows("select count(*) from raw.good") == [(2,)]
    pipe.sync({"public-bad": {**INCREMENTAL, "select": ["id", "updated_at"]}}).ok()
    assert pipe.rows("select count(*) from raw.bad") == [(2,)]
