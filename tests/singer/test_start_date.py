"""`start_date`: rows written before it are not read, neither as chunks nor as records."""

from __future__ import annotations

import pytest

from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_keys import warnings

KEYS = {"stamped": "timestamptz", "local": "timestamp", "dated": "date"}


def make(pipe) -> dict[str, dict[str, str]]:
    for table, type_ in KEYS.items():
        pipe.do(f"create table {table} (id int primary key, updated_at {type_})")
        pipe.do(f"insert into {table} values (1, '2022-10-20'), (2, '2022-11-02'), (3, '2022-11-20'), (4, null)")
    pipe.do("create table numbered (id int primary key); insert into numbered values (1)")
    pipe.do("create table whole (id int primary key, updated_at date); insert into whole values (1, '2020-01-01')")
    return {
        **{f"public-{table}": INCREMENTAL for table in KEYS},
        "public-numbered": {"replication-method": "INCREMENTAL", "replication-key": "id"},
        "public-whole": FULL_TABLE,
    }


@pytest.mark.parametrize("use_copy", [True, pytest.param(False, marks=pytest.mark.long)], ids=["chunks", "records"])
def test_rows_before_the_start_date_or_without_a_stamp_are_not_read(pipe, use_copy):
    catalog = pipe.catalog(make(pipe))
    pipe.tap |= {"use_copy": use_copy, "start_date": "2022-11-01T00:00:00+00:00", "timestamp_timezone": "UTC"}
    first = pipe.sync(catalog).ok()
    (warning,) = warnings(first.tap_log)
    assert "start_date does not limit public-numbered, whose replication key id is of type integer" in warning
    assert all(pipe.rows(f"select id from raw.{table} order by id") == [(2,), (3,)] for table in KEYS)
    assert pipe.rows("select count(*) from raw.numbered") == pipe.rows("select count(*) from raw.whole") == [(1,)]
    # it still applies with a later bookmark
    for table in KEYS:
        pipe.do(f"insert into {table} values (5, null), (6, '2022-10-21'), (7, now())")
    second = pipe.sync(catalog, first.state).ok()
    assert all(pipe.rows(f"select id from raw.{table} order by id") == [(2,), (3,), (7,)] for table in KEYS)
    # an earlier start date is noticed, and the rows in between are read
    pipe.tap["start_date"] = "2022-10-20"
    third = pipe.sync(catalog, second.state).ok()
    assert third.tap_log.count("its where clause, or start_date, was changed") == len(KEYS)
    assert all(len(pipe.rows(f"select id from raw.{table}")) == 5 for table in KEYS)
    del pipe.tap["start_date"]
    pipe.sync(catalog, third.state).ok()
    assert all(len(pipe.rows(f"select id from raw.{table}")) == 7 for table in KEYS)


def test_with_an_unknown_time_zone_every_row_that_may_be_after_the_start_date_is_read(pipe):
    pipe.do("create table a (id int primary key, updated_at timestamp)")
    pipe.do("insert into a values (1, '2022-10-31 11:59'), (2, '2022-10-31 13:00')")
    pipe.tap["start_date"] = "2022-11-01T00:00:00Z"
    pipe.sync({"public-a": INCREMENTAL}).ok()
    assert pipe.rows("select id from raw.a") == [(2,)]


def test_with_a_date_as_key_the_whole_day_of_the_start_date_is_read(pipe):
    pipe.do("create table a (id int primary key, updated_at date)")
    pipe.do("insert into a values (1, '2025-12-31'), (2, '2026-01-01'), (3, '2026-01-02')")
    for start, zone, ids in (
        ("2026-01-01T00:00:00Z", "Europe/Berlin", [2, 3]),
        ("2026-01-01T00:00:00Z", "America/New_York", [1, 2, 3]),
        ("2026-01-01T12:00:00", None, [2, 3]),
        ("2026-01-01T18:00:00Z", None, [2, 3]),
    ):
        pipe.tap |= {"start_date": start, "timestamp_timezone": zone}
        with pipe.warehouse() as connection:
            connection.execute("drop schema if exists raw cascade")
        pipe.sync({"public-a": INCREMENTAL}).ok()
        assert (start, zone, pipe.rows("select array_agg(id order by id) from raw.a")) == (start, zone, [(ids,)])


@pytest.mark.parametrize(
    "start", ["0001-01-01T00:00:00Z", pytest.param("9999-12-31T23:59:59-12:00", marks=pytest.mark.long)]
)
def test_the_first_and_the_last_possible_instant_can_be_start_dates(pipe, start):
    catalog = pipe.catalog(make(pipe))
    pipe.tap["start_date"] = start
    first = pipe.sync(catalog).ok()
    pipe.sync(catalog, first.state).ok()
    assert pipe.rows("select count(*) from raw.dated") == [(3 if start.startswith("0001") else 0,)]


def test_a_backfill_respects_the_start_date(pipe):
    catalog = pipe.catalog(make(pipe))
    pipe.tap |= {"start_date": "2022-11-01", "timestamp_timezone": "UTC"}
    state = pipe.sync(catalog).ok().state
    pipe.tap["backfill"] = {"public-stamped": {"from": "2022-01-01"}}
    pipe.sync(pipe.catalog({"public-stamped": INCREMENTAL}), state).ok()
    assert pipe.rows("select id from raw.stamped order by id") == [(2,), (3,)]


def test_an_invalid_start_date_is_refused_in_one_line(pipe):
    pipe.do("create table a (id int primary key, updated_at timestamptz)")
    catalog = pipe.catalog({"public-a": INCREMENTAL})
    pipe.tap["start_date"] = "last year"
    error = pipe.sync(catalog).refused("setting_invalid")
    assert "start_date is 'last year', not a date or an instant; write it as 2026-01-31" in error
