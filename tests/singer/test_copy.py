"""Rows pass through tap and target completely, once and unchanged."""

from __future__ import annotations

import pytest

from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_crashes import BIG, assert_equal

ORDERS = """
    create table orders (id bigint primary key, note text, amount numeric(12,2), updated_at timestamptz not null);
    insert into orders
    select n, 'note ' || n, n * 1.5, timestamptz '2026-01-01' + n * interval '1 second' from generate_series(1, 5000) n;
    create index on orders (updated_at);
"""


def test_a_table_is_loaded_with_its_types_its_key_and_all_its_rows(pipe):
    pipe.do(ORDERS)
    synced = pipe.sync({"public-orders": INCREMENTAL}, listen=True).ok()
    assert {message["type"] for message in synced.messages} == {"SCHEMA", "BATCH", "STATE"}
    assert pipe.rows("select count(*), sum(amount), min(note) from raw.orders") == [(5000, 18753750, "note 1")]
    assert pipe.rows(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = 'raw.orders'::regclass and attnum between 1 and 4 order by attnum"
    ) == [("id", "bigint"), ("note", "text"), ("amount", "numeric(12,2)"), ("updated_at", "timestamp with time zone")]
    assert pipe.rows(
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'raw.orders'::regclass and contype = 'p'"
    ) == [("PRIMARY KEY (id)",)]
    assert not list(pipe.chunks.glob("run-*"))


def test_only_changed_rows_are_read_and_only_new_values_are_written(pipe):
    pipe.do(ORDERS)
    state = pipe.sync({"public-orders": INCREMENTAL}).ok().state
    before = dict(pipe.rows("select id, _tidemark_loaded_xid::text from raw.orders"))
    pipe.do("update orders set note = 'changed', updated_at = now() where id <= 10")
    pipe.do("insert into orders values (6000, 'new', 1, now())")
    synced = pipe.sync({"public-orders": INCREMENTAL}, state, listen=True).ok()
    assert sum(message["encoding"]["rows"] for message in synced.messages if message["type"] == "BATCH") == 11
    after = dict(pipe.rows("select id, _tidemark_loaded_xid::text from raw.orders"))
    assert {id_ for id_ in after if after[id_] != before.get(id_)} == {*range(1, 11), 6000}
    assert pipe.rows("select count(*) from raw.orders where note = 'changed'") == [(10,)]


@pytest.mark.parametrize("copy", [True, False], ids=["chunks", "records"])
def test_changed_rows_of_a_large_table_are_looked_up_and_the_table_is_not_scanned(pipe, copy):
    # in an order of its own, for which PostgreSQL expects a look-up to read a page
    pipe.do(ORDERS.replace("(1, 5000) n", "(1, 100000) n order by md5(n::text)"))
    state = pipe.sync({"public-orders": INCREMENTAL}).ok().state
    with pipe.warehouse() as connection:
        connection.execute("analyze raw.orders; select pg_stat_reset_single_table_counters('raw.orders'::regclass)")
    pipe.do("update orders set note = 'changed', updated_at = now() where mod(id, 40) = 0")
    pipe.tap["use_copy"] = copy
    pipe.sync({"public-orders": INCREMENTAL}, state).ok()
    scans = "select seq_tup_read < 100000, idx_scan >= 2500 from pg_stat_user_tables where relname = 'orders'"
    assert pipe.rows(scans) == [(True, True)]
    assert pipe.rows("select count(*) from raw.orders where note = 'changed'") == [(2500,)]


@pytest.mark.parametrize("copy", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_stream_that_was_read_whole_for_a_while_is_incremental_again_with_all_its_rows(pipe, copy):
    pipe.do(ORDERS)
    pipe.tap["use_copy"] = copy
    streams, whole = {"public-orders": INCREMENTAL}, {"public-orders": FULL_TABLE}
    state = pipe.sync(streams).ok().state
    pipe.do("update orders set note = 'unnoticed' where id = 7")
    state = pipe.sync(whole, state).ok().state
    pipe.do("update orders set note = 'unnoticed too' where id = 9")
    state = pipe.sync(streams, state).ok().state
    with pipe.source() as source:
        assert (
            pipe.rows("select id, note from raw.orders order by id")
            == source.execute("select id, note from orders order by id").fetchall()
        )
    loaded = pipe.rows("select id, _tidemark_loaded_xid::text from raw.orders order by id")
    pipe.sync(streams, state).ok()
    assert pipe.rows("select id, _tidemark_loaded_xid::text from raw.orders order by id") == loaded


def test_a_keyless_full_table_stream_is_replaced_and_never_doubled(pipe):
    pipe.do("create table visits (page text, at timestamptz); insert into visits values ('/', now()), ('/', now())")
    for _ in range(2):
        pipe.sync({"public-visits": FULL_TABLE}).ok()
    assert pipe.rows("select page from raw.visits") == [("/",), ("/",)]
    pipe.do("delete from visits; insert into visits values ('/cart', null)")
    pipe.sync({"public-visits": FULL_TABLE}).ok()
    assert pipe.rows("select page, at from raw.visits") == [("/cart", None)]
    assert pipe.rows("select relname from pg_class where relname like '\\_tidemark\\_stage%'") == []


@pytest.mark.parametrize(("chunk_size_mb", "most"), [(0.6, 1), (0.1, 2)], ids=["few files", "many files"])
def test_what_changed_since_statistics_were_gathered_is_read_once_and_not_for_each_range(pipe, chunk_size_mb, most):
    pipe.do(BIG)
    pipe.do("alter table orders set (autovacuum_enabled = off); create index on orders (updated_at); analyze orders")
    state = pipe.sync({"public-orders": INCREMENTAL}).ok().state
    pipe.do("update orders set note = reverse(note), updated_at = now()")
    # PostgreSQL expects one row. Few files are read at once, and the table is cut into ranges if there are more.
    pipe.tap["chunk_size_mb"] = chunk_size_mb
    pipe.sync({"public-orders": INCREMENTAL}, state).ok()
    buffers = "source_buffers_hit + source_buffers_read"
    ((read,),) = pipe.rows(f"select {buffers} from raw._tidemark_runs order by started_at desc limit 1")
    with pipe.source() as connection:
        ((pages,),) = connection.execute("select pg_relation_size('orders') / 8192").fetchall()
    assert read < most * pages
    assert_equal(pipe)
