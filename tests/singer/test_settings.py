"""Settings without an effect are refused or reported in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests import programs
from tests.programs import TAP, TARGET
from tests.singer.conftest import FULL_TABLE, INCREMENTAL

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe

STREAMS = {"public-a": FULL_TABLE}


@pytest.fixture(scope="module")
def catalog(shared_pipe: Pipe) -> dict[str, Any]:
    """The catalog of a database with an empty table."""
    shared_pipe.do("create table a (id int primary key)")
    return shared_pipe.catalog(STREAMS)


@pytest.fixture
def unread(shared_pipe: Pipe, catalog: dict[str, Any]) -> Pipe:
    """A pipe for a run that is refused before it reads a row; such runs share their databases."""
    shared_pipe._file("catalog.json", catalog)
    return replace(shared_pipe, tap={}, target={})


def refused_alone(pipe: Pipe, side: str) -> tuple[str, set[str]]:
    """Start the tap or the target alone, which must refuse its settings; return its error and the codes."""
    tap, target = pipe.configs()
    command = [TAP, "--config", tap, "--catalog", pipe.directory / "catalog.json"]
    done = programs.run(command if side == "tap" else [TARGET, "--config", target], env=pipe.environment())
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    error = next(line for line in done.stderr.splitlines() if "ERROR" in line)
    return error, {failure["code"] for failure in pipe.failures()}


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
        ("target", {"load_method": "overwrite"}, "replaces its rows"),
        ("target", {"activate_version": False}, "activate_version is off: make the stream INCREMENTAL"),
        ("target", {"process_activate_version_messages": False}, "set use_copy of the tap to false"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_setting_that_would_change_nothing_is_refused(unread, catalog, side, settings, says):
    getattr(unread, side).update(settings)
    synced = unread.sync(catalog)
    assert (synced.tap_status if side == "tap" else synced.target_status) == 1
    error = next(
        line for line in (synced.tap_log if side == "tap" else synced.target_log).splitlines() if "ERROR" in line
    )
    assert says in error
    assert next(iter(settings)) in error


@pytest.mark.parametrize(
    ("side", "settings", "says"),
    [
        (
            "tap",
            {"lookback_second": 1},
            "lookback_second is not a setting; lookback_seconds is one. Correct or remove it.",
        ),
        ("target", {"hard_deletes": True}, "hard_deletes is not a setting; hard_delete is one. Correct or remove it."),
        (
            "tap",
            {"ssh_tunnel": {"enable": False, "hosst": "x"}, "xyz": 1},
            "ssh_tunnel.hosst is not a setting; ssh_tunnel.host is one. xyz is not a setting. Correct or remove them.",
        ),
    ],
    ids=["tap", "target", "several"],
)
def test_a_misspelt_setting_is_refused_in_one_line_with_the_nearest_one(unread, side, settings, says):
    getattr(unread, side).update(settings)
    assert says in refused_alone(unread, side)[0]


@pytest.mark.parametrize("use_copy", [True, False], ids=["chunks", "records"])
def test_dates_as_string_does_not_affect_reading_the_clock(pipe, use_copy):
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


@pytest.mark.parametrize(
    ("side", "name", "value", "wanted"),
    [
        *(("tap", name, 0, "") for name in ("max_parallel", "chunks_outstanding", "chunk_size_mb")),
        *(("tap", name, -1, "at least 0") for name in ("lookback_seconds", "snapshot_seconds", "lock_timeout")),
        *(
            ("tap", name, 1e15, "at most ")
            for name in ("lookback_seconds", "longest_transaction_seconds", "statement_timeout")
        ),
        *(
            ("target", name, -1, "at least ")
            for name in ("max_parallel", "max_rejects", "history_days", "lock_timeout")
        ),
        ("tap", "where", ["id > 1"], 'an object, such as where: {"public-orders": "order_id > 10"}.'),
        ("tap", "change_history", "public-a", 'a list, such as change_history: ["public-orders"].'),
        ("tap", "on_stream_error", "halt", "continue or stop."),
        ("target", "hard_delete", "public-a", "true or false."),
    ],
)
def test_a_value_of_a_wrong_form_is_refused_in_one_line_with_its_setting_and_what_it_must_be(
    unread, side, name, value, wanted
):
    getattr(unread, side)[name] = value
    error, codes = refused_alone(unread, side)
    assert f"{name} is " in error
    assert f"and must be {wanted}" in error
    assert codes == {"setting_invalid"}


def test_a_number_may_be_written_with_an_exponent(pipe):
    pipe.do("create table a (id int primary key, updated_at timestamptz default now()); insert into a values (1)")
    numbers = dict.fromkeys(["lookback_seconds", "longest_transaction_seconds", "snapshot_seconds"], "1e2")
    catalog = pipe.catalog({"public-a": INCREMENTAL})
    write = pipe._file
    pipe._file = lambda name, content: _with_exponents(
        write(name, {**content, **numbers} if name == "tap.json" else content)
    )
    pipe.sync(catalog).ok()
    assert pipe.rows("select count(*) from raw.a") == [(1,)]


def _with_exponents(path):
    path.write_text(path.read_text().replace('"1e2"', "1e2"))
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("masks", {"public-peple": {"email": "redact"}}),
        ("masks", {"people": {"email": "redact"}}),
        ("where", {"public.people": "false"}),
        ("stream_options", {"public-people2": {"custom_where_clauses": ["false"]}}),
        ("allow_duplicates", ["public-People"]),
    ],
    ids=["masks", "without-schema", "where", "stream_options", "allow_duplicates"],
)
def test_a_misspelt_stream_in_a_setting_stops_the_run_before_a_row_is_read(pipe, name, value):
    pipe.do("create table people (id int primary key, email text); insert into people values (1, 'ann@example.com')")
    pipe.tap[name] = value
    synced = pipe.sync({"public-people": FULL_TABLE})
    error = synced.refused("setting_invalid")
    assert f"{name} names " in error
    assert "public-people is one" in error
    assert pipe.rows("select count(*) from pg_tables where schemaname = 'raw' and tablename = 'people'") == [(0,)]


def test_settings_of_unselected_streams_are_accepted_and_those_of_another_source_reported(pipe):
    pipe.do("create table people (id int primary key); create table other (id int primary key, note text)")
    pipe.tap["masks"] = {"public-other": {"note": "redact"}, "crm-contacts": {"name": "redact"}}
    log = pipe.sync({"public-people": FULL_TABLE}).ok().tap_log
    assert "masks names crm-contacts, which the source does not have" in log
    assert "public-other" not in [word for line in log.splitlines() if "masks names" in line for word in line.split()]


@pytest.mark.parametrize("side", ["tap", "target"])
def test_a_tunnel_that_can_not_be_opened_is_reported_in_one_line(pipe, side):
    pipe.do("create table a (id int primary key)")
    catalog = pipe.catalog(STREAMS)
    way = {"enable": True, "host": "127.0.0.1", "port": 1, "username": "x", "private_key": "no key"}
    getattr(pipe, side)["ssh_tunnel"] = way
    synced = pipe.sync(catalog)
    log = synced.tap_log if side == "tap" else synced.target_log
    assert "The SSH tunnel can't be opened: Could not determine the key type" in log
    assert synced.codes == {"tunnel_failed"}
    assert "Traceback" not in log
