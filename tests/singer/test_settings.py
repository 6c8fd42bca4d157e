"""Settings that would change nothing are refused in one line, or said."""

from __future__ import annotations

import pytest

from tests.singer.conftest import FULL_TABLE, INCREMENTAL

STREAMS = {"public-a": FULL_TABLE}


@pytest.mark.parametrize(
    ("side", "settings", "says"),
    [
        (
            "tap",
            {"batch_config": {"encoding": {"format": "jsonl"}, "storage": {"root": "file:///tmp"}}},
            "set use_copy",
        ),
        ("tap", {"default_replication_method": "INCREMENTAL"}, '{"*": {"replication-method": "INCREMENTAL"'),
        ("tap", {"use_singer_decimal": True}, "numbers are sent with all their digits"),
        ("target", {"load_method": "overwrite"}, "takes the place of its rows"),
        ("target", {"activate_version": False}, "activate_version is off: make the stream INCREMENTAL"),
        ("target", {"process_activate_version_messages": False}, "set use_copy of the tap to false"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_setting_that_would_change_nothing_is_refused(pipe, side, settings, says):
    pipe.do("create table a (id int primary key)")
    catalog = pipe.catalog(STREAMS)
    (pipe.tap if side == "tap" else pipe.target).update(settings)
    synced = pipe.sync(catalog)
    assert (synced.tap_status if side == "tap" else synced.target_status) == 1
    error = next(
        line for line in (synced.tap_log if side == "tap" else synced.target_log).splitlines() if "ERROR" in line
    )
    assert says in error
    assert next(iter(settings)) in error


def test_a_misspelt_setting_is_said_with_the_one_that_is_meant(pipe):
    pipe.do("create table a (id int primary key)")
    pipe.tap["lookback_second"] = 1
    pipe.target["hard_deletes"] = True
    synced = pipe.sync(STREAMS).ok()
    assert "lookback_second is not a setting and changes nothing; lookback_seconds is one" in synced.tap_log
    assert "hard_deletes is not a setting and changes nothing; hard_delete is one" in synced.target_log


@pytest.mark.parametrize("use_copy", [True, False], ids=["chunks", "records"])
def test_dates_as_string_leaves_the_reading_of_the_clock_alone(pipe, use_copy):
    pipe.do("create table a (id int primary key, day date, updated_at timestamptz default now())")
    pipe.do("insert into a values (1, '2026-01-31'), (2, '20000-01-01')")
    pipe.tap |= {"use_copy": use_copy, "dates_as_string": True}
    catalog = pipe.catalog({"public-a": INCREMENTAL})
    state = pipe.sync(catalog).ok().state
    pipe.do("insert into a values (3, '2026-02-01')")
    pipe.sync(catalog, state).ok()
    assert pipe.rows("select id, day::text from raw.a order by id") == [
        (1, "2026-01-31"),
        (2, "20000-01-01"),
        (3, "2026-02-01"),
    ]
