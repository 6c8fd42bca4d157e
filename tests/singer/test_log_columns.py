"""Columns that come, go and change while the log is followed: each row has the values that it has in the source."""

from __future__ import annotations

import pytest

from tests.singer.test_log_based import LOG_BASED, follow, log_pipe, publish, same  # noqa: F401 - a fixture
from tests.singer.test_log_faults import SIMPLE


def test_the_default_of_a_new_column_reaches_the_rows_that_were_there_before(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do(
        "update things set name = 'before' where id = 1; alter table things add column size int default 7;"
        "insert into things values (10, 'after', 8); alter table things add column kind text default 'k';"
        "update things set name = 'later' where id = 2"
    )
    follow(pipe, "things")
    assert same(pipe, "things")
    pipe.do("alter table things add column last int default 5")
    follow(pipe, "things")
    pipe.do("update things set name = 'at last' where id = 3")
    follow(pipe, "things")
    assert same(pipe, "things")


def test_a_table_that_was_altered_before_its_first_load_has_all_its_values(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; insert into things select i, repeat('x', 500) from generate_series(1000, 5000) i")
    publish(pipe, "things")
    pipe.tap |= {"chunk_size_mb": 0.25}
    # the log begins with the table as it was
    pipe.do(
        "update things set name = 'before' where id < 3; alter table things add column size int default 7;"
        "update things set name = 'between', size = 9 where id between 3 and 4; alter table things drop column name;"
        "update things set size = 8 where id between 4 and 5"
    )
    follow(pipe, "things")
    assert same(pipe, "things")
    pipe.do("update things set size = 10 where id = 6")
    follow(pipe, "things")
    assert same(pipe, "things")


@pytest.mark.long
def test_columns_that_were_added_and_dropped_again_between_two_runs_leave_the_others_right(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    for number in (1, 2):
        pipe.do(
            f"alter table things add column short_{number} int default {number};"
            f"update things set name = 'with {number}' where id = {number};"
            f"alter table things drop column short_{number};"
            f"update things set name = 'without {number}' where id = {number + 2}"
        )
    follow(pipe, "things")
    assert same(pipe, "things")


def test_a_renamed_column_keeps_its_values(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do(
        "update things set name = 'old name' where id = 1; alter table things rename name to title;"
        "update things set title = 'new name' where id = 2; insert into things values (10, 'new')"
    )
    follow(pipe, "things")
    assert same(pipe, "things")
    # added and renamed between two runs
    pipe.do(
        "alter table things add column size int; update things set size = 1 where id = 3;"
        "alter table things rename size to length; update things set length = 2 where id = 4"
    )
    follow(pipe, "things")
    assert same(pipe, "things")


@pytest.mark.long
def test_columns_of_a_table_that_nobody_writes_to_are_renamed_added_and_dropped_too(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; alter table things add note text")
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do(
        "alter table things rename id to number; alter table things rename name to title;"
        "alter table things add size int default 7; alter table things drop note"
    )
    follow(pipe, "things")
    assert same(pipe, "things")
    pipe.do("update things set title = 'later' where number = 2; delete from things where number = 3")
    follow(pipe, "things")
    assert same(pipe, "things")
    # what was written before a change of columns has the earlier ones, and the next run has none of that
    pipe.do("update things set size = 8; alter table things rename number to id")
    follow(pipe, "things")
    follow(pipe, "things")
    assert same(pipe, "things")


def test_keys_and_masks_are_those_of_a_column_under_its_earlier_name_too(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(
        "create table people (id int primary key, code text, secret text, hidden text);"
        "insert into people values (1, 'c', 's3cret', 'h1dden'), (2, 'c', 's3cret', 'h1dden')"
    )
    publish(pipe, "people")
    streams = {"public-people": {**LOG_BASED, "select": ["id", "code", "secret"]}}
    pipe.tap |= {"masks": {"public-people": {"secret": "redact"}}}
    pipe.state = pipe.sync(streams).ok().state
    pipe.do(
        "update people set secret = 's3cret too', hidden = 'h1dden too' where id = 1; insert into people values"
        "(3, 'c', 's3cret', 'h1dden'); alter table people rename id to number;"
        "alter table people rename secret to token; alter table people rename hidden to more;"
        "update people set token = 's3cret', code = 'last' where number = 2"
    )
    streams = {"public-people": {**LOG_BASED, "select": ["number", "code", "token"]}}
    pipe.tap |= {"masks": {"public-people": {"token": "redact"}}}
    pipe.state = pipe.sync(streams, pipe.state).ok().state
    assert pipe.rows("select number, code from raw.people order by 1") == [(1, "c"), (2, "last"), (3, "c")]
    assert pipe.rows("select count(*) from raw.people where people::text ~ 's3cret|h1dden'") == [(0,)]


@pytest.mark.long
def test_a_column_that_only_travels_as_text_can_be_dropped(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create type pair as (a int, b text); alter table things add p pair")
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do(
        "update things set p = (1, 'b') where id = 1; alter table things drop column p;"
        "update things set name = 'without' where id = 2"
    )
    follow(pipe, "things")
    assert same(pipe, "things")
    assert pipe.rows("select p::text from raw.things where id = 1") == [("(1,b)",)]


@pytest.mark.long
def test_the_default_of_a_new_column_reaches_the_rows_of_all_partitions(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(
        "create table parted (id int, day int, primary key (id, day)) partition by list (day);"
        "create table parted_1 partition of parted for values in (1);"
        "create table parted_2 partition of parted for values in (2);"
        "insert into parted values (1, 1), (2, 2), (3, 2)"
    )
    publish(pipe, "parted")
    follow(pipe, "parted")
    pipe.do(
        "alter table parted add size int default 7; create table parted_3 partition of parted for values in (3);"
        "insert into parted values (4, 3, null); delete from parted where id = 3"
    )
    follow(pipe, "parted")
    assert same(pipe, "parted")


@pytest.mark.long
def test_a_truncate_before_an_unread_column_came_or_went_is_not_forgotten(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do("alter table things add short int; begin; truncate things; alter table things drop short; commit")
    pipe.do("insert into things values (50, 'after')")
    follow(pipe, "things")
    assert same(pipe, "things")
