"""What analysts get of the log: the commit that changed a row last, and a history of all changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.singer.conftest import INCREMENTAL, Pipe, kill
from tests.singer.test_log_based import LOG_BASED, follow, log_pipe, publish, same  # noqa: F401 - a fixture

TABLE = """
    create table orders (id int primary key, status text, body text);
    alter table orders alter body set storage external;
    insert into orders select i, 'new', repeat('x', 3000) from generate_series(1, 5) i
"""
ORDERED = "order by _sdc_lsn, _tidemark_number"


@pytest.fixture
def orders(log_pipe: Pipe) -> Pipe:  # noqa: F811
    pipe = log_pipe
    pipe.do(TABLE)
    publish(pipe, "orders")
    pipe.tap |= {"commit_columns": ["public-orders"], "change_history": ["public-orders"]}
    return pipe


def history(pipe: Pipe, columns: str = "_tidemark_operation, id, status") -> list[tuple[Any, ...]]:
    return pipe.rows(f"select {columns} from raw.orders_changes {ORDERED}")


def test_each_change_is_in_the_history_once_with_the_values_that_it_left(orders):
    pipe = orders
    pipe.do("update orders set status = 'while it is loaded' where id = 1")
    follow(pipe, "orders")
    assert history(pipe) == [("begin", None, None)]
    pipe.do("insert into orders values (6, 'new', repeat('six', 1000)); update orders set status = 'paid' where id = 6")
    pipe.do("update orders set status = 'paid' where id = 1; update orders set status = 'sent' where id = 1")
    pipe.do("delete from orders where id = 2; insert into orders values (2, 'again', null)")
    pipe.do("update orders set id = 30 where id = 3")
    older = pipe.state
    follow(pipe, "orders")
    expected = [
        ("begin", None, None, None),
        ("insert", 6, "new", 3000),
        ("update", 6, "paid", 3000),
        ("update", 1, "paid", 3000),
        ("update", 1, "sent", 3000),
        ("delete", 2, None, None),
        ("insert", 2, "again", None),
        ("delete", 3, None, None),
        ("insert", 30, "new", 3000),
    ]
    columns = "_tidemark_operation, id, status, length(body)"
    assert history(pipe, columns) == expected
    follow(pipe, "orders", state=older)
    assert history(pipe, columns) == expected, "a run that begins before them changes nothing"
    ((transactions, times),) = pipe.rows(
        "select count(distinct _sdc_lsn), count(distinct _sdc_committed_at) from raw.orders_changes "
        "where _tidemark_operation <> 'begin'"
    )
    assert (transactions, times) == (4, 4)


def test_a_truncate_is_one_row_of_the_history_and_values_before_it_are_kept(orders):
    pipe = orders
    follow(pipe, "orders")
    pipe.do(
        "begin; update orders set status = 'last' where id = 1; truncate orders;"
        "insert into orders values (1, 'first'); update orders set status = 'second' where id = 1; commit"
    )
    follow(pipe, "orders")
    assert history(pipe, "_tidemark_operation, id, status, length(body)")[1:] == [
        ("update", 1, "last", 3000),
        ("truncate", None, None, None),
        ("insert", 1, "first", None),
        ("update", 1, "second", None),
    ]
    assert same(pipe, "orders")


def test_rows_have_the_commit_that_changed_them_last(orders):
    pipe = orders
    pipe.target |= {"hard_delete": False}
    follow(pipe, "orders")
    query = "select id, _sdc_lsn is null, _sdc_committed_at is null from raw.orders order by id"
    assert pipe.rows(query) == [(i, True, True) for i in range(1, 6)]
    with pipe.source() as source:
        (before,) = source.execute("select clock_timestamp()").fetchone()
        pipe.do("update orders set status = 'paid' where id = 1")
        pipe.do("delete from orders where id = 2")
        (after,) = source.execute("select clock_timestamp()").fetchone()
    follow(pipe, "orders")
    rows = pipe.rows("select id, _sdc_lsn, _sdc_committed_at from raw.orders where _sdc_lsn is not null order by id")
    assert [row[0] for row in rows] == [1, 2]
    assert rows[0][1] < rows[1][1]
    assert before <= rows[0][2] <= rows[1][2] <= after
    changes = "select id, _sdc_lsn, _sdc_committed_at from raw.orders_changes where id is not null order by id"
    assert pipe.rows(changes) == rows
    pipe.do("truncate orders")
    follow(pipe, "orders")
    truncated = pipe.rows(f"select id from raw.orders where _sdc_lsn > {rows[1][1]} order by id")
    assert truncated == [(1,), (3,), (4,), (5,)]
    assert pipe.rows("select count(*) from raw.orders where _sdc_deleted_at is null") == [(0,)]


def test_the_history_follows_new_columns_and_keeps_old_ones(orders):
    pipe = orders
    follow(pipe, "orders")
    pipe.do("update orders set status = 'a' where id = 1; alter table orders add amount int, drop body")
    pipe.do("update orders set amount = 1 where id = 1; alter table orders alter amount type bigint")
    pipe.do("update orders set amount = 5000000000 where id = 1")
    follow(pipe, "orders")
    pipe.do("update orders set status = 'b' where id = 2")
    follow(pipe, "orders")
    assert history(pipe, "_tidemark_operation, id, status, length(body), amount")[1:] == [
        ("update", 1, "a", 3000, None),
        ("update", 1, "a", None, 1),
        ("update", 1, "a", None, 5000000000),
        ("update", 2, "b", None, None),
    ]


@pytest.mark.long
def test_gaps_of_a_history_are_marked(orders):
    pipe = orders
    follow(pipe, "orders")
    pipe.do("update orders set status = 'kept' where id = 1")
    follow(pipe, "orders")
    with pipe.warehouse() as connection:
        # of a server whose positions were higher
        connection.execute(
            "insert into raw.orders_changes (_sdc_lsn, _tidemark_number, _sdc_committed_at, _tidemark_operation, "
            "_tidemark_loaded_xid) values (9e18, 1, '2001-01-01', 'delete', '3')"
        )
    del pipe.tap["change_history"]
    for status in ("missed", "missed, too"):
        pipe.do(f"update orders set status = '{status}' where id = 1")
        follow(pipe, "orders")
    pipe.tap["change_history"] = ["public-orders"]
    pipe.do("update orders set status = 'kept again' where id = 1")
    follow(pipe, "orders")
    pipe.state = None
    pipe.do("update orders set status = 'while it is loaded' where id = 1")
    follow(pipe, "orders")
    assert history(pipe) == [
        ("begin", None, None),
        ("update", 1, "kept"),
        ("end", None, None),
        ("begin", None, None),
        ("update", 1, "kept again"),
        ("begin", None, None),
        ("delete", None, None),
    ]


@pytest.mark.long
def test_a_history_is_kept_for_ever_or_for_as_many_days_as_are_asked_for(orders):
    pipe = orders
    follow(pipe, "orders")
    pipe.do("update orders set status = 'old'")
    follow(pipe, "orders")
    with pipe.warehouse() as connection:
        connection.execute("update raw.orders_changes set _sdc_committed_at = now() - interval '9 days'")
        # more than one transaction deletes
        connection.execute(
            "insert into raw.orders_changes (_sdc_lsn, _tidemark_number, _sdc_committed_at, _tidemark_operation, id) "
            "select 1, n, now() - interval '8 days', 'insert', n from generate_series(1, 45000) n; "
            "analyze raw.orders_changes"
        )
    pipe.do("update orders set status = 'new' where id = 1")
    follow(pipe, "orders")
    assert len(history(pipe)) == 45_007
    pipe.target |= {"change_history_days": 7}
    scans = "select seq_scan from pg_stat_all_tables where relid = 'raw.orders_changes'::regclass"
    before = pipe.rows(scans)
    follow(pipe, "orders")
    # each deletion begins at the oldest changes, and does not look through all
    assert pipe.rows(scans) == before
    assert history(pipe) == [("update", 1, "new")]
    # positions began again lower, as after the source's move: new changes come before old ones
    with pipe.warehouse() as connection:
        insert = (
            "insert into raw.orders_changes (_sdc_lsn, _tidemark_number, _sdc_committed_at, _tidemark_operation, "
            "_tidemark_loaded_xid) select {}, n, now() - interval '{} days', 'insert', {} from generate_series(1, {}) n"
        )
        connection.execute(insert.format("9e18", 9, "'3'::xid8", 3))
        connection.execute(insert.format(1, 1, "pg_current_xact_id()", 20_000))
    follow(pipe, "orders")
    assert pipe.rows("select count(*) from raw.orders_changes where _sdc_lsn <> 1") == [(1,)]


def test_a_history_or_commits_of_a_stream_that_is_not_followed_are_refused(orders):
    pipe = orders
    pipe.do("alter table orders add updated_at timestamptz default now()")
    line = pipe.sync({"public-orders": INCREMENTAL}).refused("setting_invalid")
    assert "commit_columns names public-orders, and would have no effect: it is not LOG_BASED" in line
    pipe.do("create table orders_changes (id int primary key)")
    del pipe.tap["commit_columns"], pipe.tap["change_history"]
    pipe.sync({"public-orders_changes": {"replication-method": "FULL_TABLE"}}).ok()
    pipe.tap["change_history"] = ["public-orders"]
    line = pipe.sync({"public-orders": LOG_BASED}).refused("name_taken")
    assert "would be raw.orders_changes, and that is another table" in line


@pytest.mark.long
def test_after_kills_the_history_adds_up_to_the_table(orders):
    pipe = orders
    follow(pipe, "orders")
    state = pipe.state
    for number in range(6):
        for _ in range(20):
            pipe.do(
                f"insert into orders select i, 'k{number}' from generate_series(1, 300) i where i % 7 = {number} "
                f"on conflict (id) do update set status = 'u{number}'; delete from orders where id % 11 = {number}"
            )
        processes = pipe.start({"public-orders": LOG_BASED}, state)
        # at any time of a run, which takes about a second
        with_delay = 0.3 + 0.2 * number
        try:
            processes[number % 2].wait(timeout=with_delay)
        except Exception:  # noqa: BLE001 - the program of a forked process has its own
            kill(processes[number % 2])
        state = pipe.finish(processes).state or state
    pipe.state = state
    follow(pipe, "orders")
    assert same(pipe, "orders")
    # each key's last change says what the table has
    ((wrong,),) = pipe.rows("""
        with last as (
            select distinct on (id) id, status, _tidemark_operation from raw.orders_changes
            where id is not null order by id, _sdc_lsn desc, _tidemark_number desc
        )
        select count(*) from last full join raw.orders o using (id)
        where (last.id is not null and (o.id is null) <> (_tidemark_operation = 'delete'))
            or (last.id is not null and o.id is not null and last.status is distinct from o.status)
    """)
    assert wrong == 0
    # and no change is there twice: an insert never follows an insert or update of its key
    ((doubled,),) = pipe.rows("""
        select count(*) from (
            select _tidemark_operation, lag(_tidemark_operation) over (
                partition by id order by _sdc_lsn, _tidemark_number
            ) before from raw.orders_changes where id is not null
        ) t where (_tidemark_operation = 'insert') <> (before = 'delete')
    """)
    assert doubled == 0
