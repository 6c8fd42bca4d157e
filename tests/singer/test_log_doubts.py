"""What PostgreSQL sends no change for: the warehouse says which streams may differ from the source, and why."""

from __future__ import annotations

import re
import time

from tests.singer.conftest import kill
from tests.singer.test_crashes import wait_for
from tests.singer.test_log_based import LOG_BASED, SLOT, follow, log_pipe, publish, same  # noqa: F401 - a fixture
from tests.singer.test_log_faults import SIMPLE

PARTED = """
    create table parted (id int, day int, primary key (id, day)) partition by list (day);
    create table parted_1 partition of parted for values in (1);
    create table parted_2 partition of parted for values in (2);
    create table parted_3 partition of parted for values in (3);
    create table newcomer (like parted including all); insert into newcomer values (40, 4);
    insert into parted select i, i % 3 + 1 from generate_series(1, 30) i
"""
SILENT = {
    "another type": ("alter table things alter column name type varchar(9) using upper(name)", "was rewritten"),
    "volatile default": ("alter table things add column drawn float default random()", "was rewritten"),
    "attached": ("alter table parted attach partition newcomer for values in (4)", "newcomer was attached"),
    "detached": ("alter table parted detach partition parted_1", "a partition was detached or dropped"),
    "dropped": ("drop table parted_2", "a partition was detached or dropped"),
    "truncated": ("truncate parted_3", "parted_3 was rewritten or truncated"),
    "added and renamed": (
        (
            "alter table things add gone int; alter table things add size int; update things set size = 1;"
            "alter table things drop gone; alter table things rename size to length"
        ),
        "was dropped, or renamed to length",
    ),
}


def doubts(pipe) -> list[str]:
    return [why for (why,) in pipe.rows("select repair from raw._tidemark_state where repair is not null")]


def test_what_the_log_does_not_tell_of_is_noted_with_its_stream(log_pipe):  # noqa: F811
    pipe = log_pipe

    def own(case: str, text: str) -> str:
        """Give the case tables of its own."""
        return re.sub("things|parted|newcomer", rf"\g<0>_{case.replace(' ', '_')}", text)

    tables = [own(case, table) for case in SILENT for table in ("things", "parted")]
    for case in SILENT:
        pipe.do(own(case, f"{SIMPLE}; {PARTED}"))
    publish(pipe, *tables)
    follow(pipe, *tables)
    assert doubts(pipe) == []
    for case, (statements, _) in SILENT.items():
        pipe.do(own(case, statements))
        pipe.do(own(case, "update things set name = 'later' where id = 1; insert into parted values (100, 3)"))
    follow(pipe, *tables)
    said = dict(pipe.rows("select stream, repair from raw._tidemark_state where repair is not null"))
    assert len(said) == len(SILENT)
    for case, (_, why) in SILENT.items():
        (found,) = [each for stream, each in said.items() if stream.endswith(own(case, "things")[6:])]
        assert own(case, why) in found


def test_a_doubt_survives_a_run_that_was_killed(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do("alter table things alter column name type varchar(9) using upper(name)")
    pipe.tap |= {"replication_max_run_seconds": 30, "flush_seconds": 0.2}
    processes = pipe.start({"public-things": LOG_BASED}, pipe.state)
    pipe.do("insert into things values (100, 'followed')")
    wait_for(lambda: pipe.rows("select id from raw.things where id = 100"))
    time.sleep(1)
    kill(processes[0])
    pipe.state = pipe.finish(processes).state
    assert pipe.state
    pipe.tap["replication_max_run_seconds"] = 0
    follow(pipe, "things")
    assert doubts(pipe) == ["things was rewritten or truncated"]


def test_a_table_that_was_dropped_and_made_again_is_refused_until_it_is_published_and_then_loaded(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table others (id int primary key); insert into others values (1)")
    publish(pipe, "things", "others")
    follow(pipe, "things", "others")
    pipe.do(f"drop table things; {SIMPLE}; delete from things where id > 5; insert into others values (2)")
    done = pipe.sync({"public-things": LOG_BASED, "public-others": LOG_BASED}, pipe.state)
    assert done.codes == {"log_unfit"}
    assert f'ALTER PUBLICATION "{SLOT}" ADD TABLE' in done.tap_log
    assert same(pipe, "others")
    pipe.state = done.state
    pipe.do(f"alter publication {SLOT} add table things; update things set name = 'again' where id = 1")
    follow(pipe, "things", "others")
    assert pipe.rows("select name from raw.things where id = 1") == [("again",)]
    # rows of the former table that the new one lacks are left, so it says so
    assert same(pipe, "things") or doubts(pipe)
