"""A table gets its key at the end of its first load."""

from __future__ import annotations

import pytest

from tests.singer.conftest import INCREMENTAL, kill
from tests.singer.test_crashes import BIG, SMALL_CHUNKS, assert_equal, wait_for

KEY = "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'raw.{}'::regclass and contype = 'p'"
XID_INDEX = "raw.orders__tidemark_loaded_xid_idx"


def test_a_key_that_does_not_identify_rows_is_refused_and_another_one_brings_them_all(pipe):
    pipe.do(
        "create table orders (id int primary key, updated_at timestamptz default now()); "
        "insert into orders select generate_series(1, 1000); "
        "create view halves as select id / 2 as half, id, updated_at from orders"
    )
    line = pipe.sync({"public-halves": {**INCREMENTAL, "table-key-properties": ["half"]}}).refused(
        "constraint_violation"
    )
    assert "several rows with the same key, so raw.halves can't have the primary key (half)" in line
    assert "tidemark state rewind public-halves --to beginning" in line
    pipe.sync({"public-halves": {**INCREMENTAL, "table-key-properties": ["id"]}}).ok()
    assert pipe.rows("select count(*), count(distinct id) from raw.halves") == [(1000, 1000)]
    assert pipe.rows(KEY.format("halves")) == [("PRIMARY KEY (id)",)]


def test_a_limit_on_statements_is_not_for_the_key_and_what_fails_after_the_commit_is_left_to_the_next_run(pipe):
    pipe.do(
        "create table orders (id int primary key, updated_at timestamptz default now()); insert into orders values (1)"
    )
    with pipe.warehouse() as connection:
        connection.execute("""
            create function public.refuse() returns event_trigger language plpgsql as $$ begin
                if not exists (select from pg_event_trigger_ddl_commands() where object_identity ~ '^raw.orders') then
                    return;
                elsif tg_tag = 'CREATE INDEX' and current_setting('statement_timeout') <> '0' then
                    raise 'an index may take at most %', current_setting('statement_timeout');
                elsif exists (
                    select from pg_constraint where conrelid = to_regclass('raw.orders') and contype = 'p'
                ) then
                    raise 'no';
                end if;
            end $$;
            create event trigger refuse on ddl_command_end execute function public.refuse();
        """)
    pipe.target["statement_timeout"] = 60
    done = pipe.sync({"public-orders": INCREMENTAL}).ok()
    assert 'Left to the next run: table="raw"."orders", error=no' in done.target_log
    assert pipe.rows(KEY.format("orders")) == []
    assert pipe.rows(f"select to_regclass('{XID_INDEX}') is not null") == [(True,)]
    with pipe.warehouse() as connection:
        connection.execute("drop event trigger refuse")
    pipe.sync({"public-orders": INCREMENTAL}, done.state).ok()
    assert pipe.rows(KEY.format("orders")) == [("PRIMARY KEY (id)",)]


@pytest.mark.long
def test_readers_of_a_table_do_not_wait_while_its_key_is_built(pipe):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    processes = pipe.start(catalog)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 4)
    kill(processes[-1])
    killed = pipe.finish(processes)
    with pipe.warehouse() as reader, reader.transaction(), pipe.warehouse() as other:
        reader.execute("select from raw.orders limit 1")
        processes = pipe.start(catalog, killed.state)
        while processes[-1].poll() is None:
            other.execute("set statement_timeout = '3s'; select from raw.orders limit 1")
        state = pipe.finish(processes).ok().state
        # all rows are there, matched by a unique index
        assert_equal(pipe)
        assert pipe.rows(KEY.format("orders")) == []
    pipe.sync(catalog, state).ok()
    assert pipe.rows(KEY.format("orders")) == [("PRIMARY KEY (id)",)]


def test_models_find_new_rows_by_an_index_without_those_of_the_first_load_also_in_a_restored_warehouse(pipe):
    def latest() -> int:
        return pipe.rows("select max(_tidemark_loaded_xid::text::bigint) from raw.orders")[0][0]

    def plan(xid: int) -> str:
        # without it, PostgreSQL would rather read a small table
        plain = "set enable_seqscan = off; set enable_bitmapscan = off"
        with pipe.warehouse() as connection:
            connection.execute(plain)
            query = f"explain (costs off) select from raw.orders where _tidemark_loaded_xid >= '{xid}'::xid8"
            return "\n".join(line for (line,) in connection.execute(query))

    entries = f"select reltuples from pg_class where oid = '{XID_INDEX}'::regclass"
    pipe.do(
        "create table orders (id int primary key, updated_at timestamptz default now()); insert into orders values (1)"
    )
    streams = {"public-orders": INCREMENTAL}
    pipe.sync(streams).ok()
    assert pipe.rows(entries) == [(0,)]
    assert "Seq Scan" in plan(latest())
    pipe.do("insert into orders values (2)")
    state = pipe.sync(streams, pipe.state).ok().state
    assert XID_INDEX.partition(".")[2] in plan(latest())
    # transactions count from the beginning again
    with pipe.warehouse() as connection:
        connection.execute(f"drop index {XID_INDEX}")
        predicate = "_tidemark_loaded_xid > '1000000000'::xid8"
        connection.execute(f"create index on raw.orders (_tidemark_loaded_xid) where {predicate}")
    pipe.do("insert into orders values (3)")
    pipe.sync(streams, state).ok()
    pipe.do("insert into orders values (4)")
    pipe.sync(streams, pipe.state).ok()
    assert " using orders__tidemark_loaded_xid_idx1 " in plan(latest())
    assert pipe.rows("select count(*) from pg_index where indrelid = 'raw.orders'::regclass") == [(2,)]
