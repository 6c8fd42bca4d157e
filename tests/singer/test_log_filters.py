"""LOG_BASED streams with a condition (where): the source's server leaves out what does not meet it."""

from __future__ import annotations

import pytest

from tests.singer.advice import refusals
from tests.singer.test_log_based import LOG_BASED, SLOT, follow, log_pipe  # noqa: F401 - a fixture
from tests.singer.test_log_based import publish as publish_all

TABLE = """
    create table sales (id int primary key, status varchar(20), region text, body text);
    alter table sales alter body set storage external;
    insert into sales select i, case when i % 2 = 0 then 'paid' else 'open' end, 'eu', repeat('x', 3000)
        from generate_series(1, 20) i;
"""
WHERE = "status = 'paid' and region in ('eu', 'us') -- both"


def publish(pipe, condition: str, table: str = "sales") -> None:
    pipe.do(f"create publication {SLOT} for table {table} where ({condition}\n) with (publish_via_partition_root)")
    pipe.do(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")


def same(pipe, condition: str, table: str = "sales") -> bool:
    query = f"select id, status, region, body from {{}}.{table} where {{}} order by id"
    with pipe.source() as source:
        there = source.execute(query.format("public", f"{condition}\n").encode()).fetchall()
    return bool(there) and pipe.rows(query.format("raw", "_sdc_deleted_at is null")) == there


def test_rows_that_come_to_meet_the_condition_appear_and_those_that_no_longer_do_are_deleted(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{TABLE}; alter table sales replica identity full")
    publish(pipe, WHERE)
    pipe.tap |= {"where": {"public-sales": WHERE}}
    follow(pipe, "sales")
    assert same(pipe, WHERE)
    pipe.do(
        "update sales set status = 'paid' where id in (1, 3); update sales set status = 'open' where id in (2, 4);"
        "update sales set region = 'us' where id = 6; update sales set id = 100 where id = 8;"
        "insert into sales values (200, 'paid', 'eu', 'new'), (201, 'open', 'eu', 'new');"
        "delete from sales where id < 4"
    )
    follow(pipe, "sales")
    assert same(pipe, WHERE)
    assert pipe.rows("select count(*) from raw.sales where id in (2, 4, 201)") == [(0,)]


@pytest.mark.long
def test_partitions_are_filtered_by_the_condition_of_their_table(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(
        "create table sales (id int, status text, region text, body text, primary key (id, status)) "
        "partition by hash (id); create table sales_0 partition of sales for values with (modulus 2, remainder 0);"
        "create table sales_1 partition of sales for values with (modulus 2, remainder 1);"
        "insert into sales select i, case when i % 3 = 0 then 'paid' else 'open' end from generate_series(1, 20) i"
    )
    publish(pipe, "status = 'paid'")
    pipe.tap |= {"where": {"public-sales": "status = 'paid'"}}
    follow(pipe, "sales")
    pipe.do("alter table sales_0 replica identity full")
    follow(pipe, "sales")
    pipe.do("update sales set status = 'paid' where id in (1, 2); update sales set status = 'open' where id in (3, 6)")
    follow(pipe, "sales")
    assert same(pipe, "status = 'paid'")


@pytest.mark.long
def test_a_row_whose_large_values_the_log_lacks_when_it_comes_to_meet_the_condition_is_not_loaded_without_them(
    log_pipe,  # noqa: F811
):
    pipe = log_pipe
    pipe.do(f"{TABLE}; create table things (id int primary key)")
    publish(pipe, "id < 10")
    pipe.do(f"alter publication {SLOT} add table things")
    pipe.tap |= {"where": {"public-sales": "id < 10"}}
    streams = {"public-sales": LOG_BASED, "public-things": LOG_BASED}
    pipe.state = pipe.sync(streams).ok().state
    assert same(pipe, "id < 10")
    pipe.do("update sales set id = 0 where id = 20; insert into things values (1)")
    done = pipe.sync(streams, pipe.state)
    assert done.codes == {"log_unfit"}, done.tap_log
    assert "came to meet the stream's condition (where), and the log lacks its large values" in done.tap_log
    assert pipe.rows("select id from raw.things") == [(1,)], "the others go on"
    assert not pipe.rows("select from raw.sales where id = 0")
    pipe.do("alter table sales replica identity full")
    state = {"bookmarks": {"public-things": done.state["bookmarks"]["public-things"]}}
    pipe.state = pipe.sync(streams, state).ok().state
    pipe.do("update sales set id = -1 where id = 19")
    pipe.sync(streams, pipe.state).ok()
    assert same(pipe, "id < 10")


def test_a_stream_whose_condition_changed_follows_on_and_is_to_be_compared(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{TABLE}; alter table sales replica identity full")
    publish(pipe, "status = 'paid'")
    pipe.tap |= {"where": {"public-sales": "status = 'paid'"}}
    follow(pipe, "sales")
    pipe.do(
        f"update sales set body = 'earlier' where id in (2, 3);alter publication {SLOT} set table sales where (id < 15)"
    )
    pipe.do("update sales set body = 'later' where id in (4, 5, 16)")
    pipe.tap |= {"where": {"public-sales": "id < 15"}}
    done = follow(pipe, "sales")
    assert "its condition (where) was changed; `tidemark slots repair public-sales` compares them" in done.target_log
    assert "from its beginning" not in done.tap_log
    assert pipe.rows("select id, body from raw.sales where body !~ 'x' order by 1") == [
        (2, "earlier"),
        (4, "later"),
        (5, "later"),
    ]
    repair = "select repair from raw._tidemark_state"
    assert pipe.rows(repair) == [("its condition (where) was changed",)]
    # once it is settled, it does not come back; nor because of another form of the condition
    with pipe.warehouse() as warehouse:
        warehouse.execute("update raw._tidemark_state set repair = null")
    pipe.tap |= {"where": {"public-sales": "id<15"}}
    assert "from its beginning" not in follow(pipe, "sales").tap_log
    assert pipe.rows(repair) == [(None,)]


def test_a_stream_whose_condition_is_not_published_yet_is_refused_with_what_brings_it_back(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{TABLE}; alter table sales replica identity full; create table things (id int primary key)")
    publish(pipe, "status = 'paid'")
    pipe.do(f"alter publication {SLOT} add table things")
    pipe.tap |= {"where": {"public-sales": "status = 'paid'"}}
    streams = {"public-sales": LOG_BASED, "public-things": LOG_BASED}
    state = pipe.sync(streams).ok().state
    pipe.tap |= {"where": {"public-sales": "id < 15"}}
    pipe.do("insert into things values (1); update sales set body = 'not loaded' where id = 2")
    done = pipe.sync(streams, state)
    line = done.refused("log_unfit")
    assert "The stream has those with (id < 15) (where), and the publication" in line
    assert "`tidemark slots create` brings it up to date, and then `tidemark slots repair` the rows" in line
    assert pipe.rows("select id from raw.things") == [(1,)], "the others go on"
    assert not pipe.rows("select from raw.sales where body = 'not loaded'")
    pipe.do(f"alter publication {SLOT} set table sales where (id < 15), things")
    done = pipe.sync(streams, done.state)
    assert "`tidemark slots repair public-sales` compares it with the source" in done.target_log


def test_a_stream_that_was_published_by_another_condition_meanwhile_is_loaded_again(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{TABLE}; alter table sales replica identity full")
    publish(pipe, "status = 'paid'")
    pipe.tap |= {"where": {"public-sales": "status = 'paid'"}}
    follow(pipe, "sales")
    pipe.do(f"alter publication {SLOT} set table sales where (id > 1000)")
    pipe.do("update sales set body = 'the log lacks this'")
    pipe.do(f"alter publication {SLOT} set table sales where (status = 'paid')")
    done = follow(pipe, "sales")
    assert "it was published again, and the log lacks what changed meanwhile" in done.tap_log
    assert same(pipe, "status = 'paid'")


UNFIT = {
    "outside_the_identity": ("region = 'eu'", "uses region, which the log does not have for each change"),
    "subquery": ("id in (select 1)", "has a subquery"),
    "system_column": ("xmin is not null", "uses a system column"),
    "misspelt": ("idd = 1", 'column "idd" does not exist'),
    "no_condition": ("id", "must be type boolean"),
    "not_published": ("now() > '2020-01-01'", "has all rows of public.not_published: `tidemark slots create`"),
}


def test_a_condition_that_the_log_can_not_apply_is_refused(log_pipe):  # noqa: F811
    pipe = log_pipe
    for name in UNFIT:
        pipe.do(TABLE.replace("sales", name))
    publish_all(pipe, *UNFIT)
    pipe.tap |= {"where": {f"public-{name}": condition for name, (condition, _) in UNFIT.items()}}
    run = pipe.sync({f"public-{name}": LOG_BASED for name in UNFIT})
    assert run.codes == {"log_unfit"}, run.tap_log
    lines = refusals(run)
    for name, (_, said) in UNFIT.items():
        assert [said in line for line in lines if f"public.{name}" in line] == [True], (name, lines)


def test_a_publication_may_leave_out_columns_that_are_not_selected(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(TABLE)
    publish(pipe, "true")
    pipe.do(f"alter publication {SLOT} set table sales (id, status)")
    assert "publish body, region too" in pipe.sync({"public-sales": LOG_BASED}).refused("log_unfit")
    streams = {"public-sales": {**LOG_BASED, "select": ["id", "status"]}}
    state = pipe.sync(streams).ok().state
    pipe.do("update sales set status = 'new', body = 'new' where id = 1")
    pipe.sync(streams, state).ok()
    assert pipe.rows("select status from raw.sales where id = 1") == [("new",)]
    pipe.do("alter table sales replica identity full")
    line = pipe.sync(streams, state).refused("log_unfit")
    assert "rows are identified by all, so UPDATE and DELETE fail in the source" in line
