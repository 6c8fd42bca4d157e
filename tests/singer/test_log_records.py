"""LOG_BASED streams as RECORD messages, for other targets and for stream maps: at least once, and with all values."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests import programs
from tests.programs import TAP, TARGET
from tests.singer.conftest import kill
from tests.singer.sample import FIXED
from tests.singer.test_log_based import LOG_BASED, SLOT, log_pipe, publish  # noqa: F401 - a fixture
from tests.singer.test_log_faults import lsn
from tests.singer.test_record_parity import ALIKE, OURS, SETUP

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe

SIMPLE = """
    create table things (id int primary key, name text, body text);
    alter table things alter body set storage external;
    insert into things select i, 'n', repeat('x', 3000) from generate_series(1, 3) i
"""
FROM_TABLE = {"_sdc_deleted_at": None, "_sdc_lsn": None}


class Sent:
    """What the tap sent in one run."""

    def __init__(self, output: str, log: str, status: int) -> None:
        self.messages = [json.loads(line) for line in output.splitlines()]
        self.records = [(each["stream"], each["record"]) for each in self.messages if each["type"] == "RECORD"]
        self.states = [each["value"] for each in self.messages if each["type"] == "STATE"]
        self.log, self.status = log, status

    def of(self, stream: str = "things") -> list[dict[str, Any]]:
        return [record for name, record in self.records if name == f"public-{stream}"]


def read(pipe: Pipe, *streams: str) -> Sent:
    """Run the tap alone, from the state of its last run that succeeded."""
    pipe.tap["use_copy"] = False
    catalog = pipe.catalog({f"public-{name}": LOG_BASED for name in streams or ("things",)})
    config, _ = pipe.configs()
    command = [TAP, "--config", config, "--catalog", pipe._file("catalog.json", catalog)]
    if pipe.state is not None:
        command += ["--state", pipe._file("state.json", pipe.state)]
    done = programs.run(command, env=pipe.environment())
    sent = Sent(done.stdout, done.stderr, done.returncode)
    if sent.status == 0:
        pipe.state = sent.states[-1]
    return sent


def visible(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not name.startswith("_sdc_")}


def test_changes_are_sent_in_order_with_deletes_and_changed_keys(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    first = read(pipe)
    assert first.status == 0, first.log
    assert first.of() == [{"id": i, "name": "n", "body": "x" * 3000, **FROM_TABLE} for i in (1, 2, 3)]
    pipe.do(
        "insert into things values (4, 'new', null); update things set name = 'b' where id = 1;"
        "delete from things where id = 2; update things set id = 30 where id = 3"
    )
    sent = read(pipe)
    assert sent.status == 0, sent.log
    records = sent.of()
    assert [visible(record) for record in records] == [
        {"id": 4, "name": "new", "body": None},
        # the log has no large value that did not change
        {"id": 1, "name": "b"},
        {"id": 2},
        {"id": 3},
        {"id": 30, "name": "n"},
    ]
    assert [bool(record["_sdc_deleted_at"]) for record in records] == [False, False, True, True, False]
    assert {record["_sdc_lsn"] for record in records} == {records[0]["_sdc_lsn"]}, "that of the transaction's commit"
    assert "lack large values that did not change" in sent.log
    (schema,) = [each["schema"] for each in sent.messages if each["type"] == "SCHEMA"]
    assert {"_sdc_deleted_at", "_sdc_lsn"} <= schema["properties"].keys()
    assert read(pipe).records == []
    pipe.do("alter table things replica identity full; update things set name = 'c' where id = 1")
    (record,) = read(pipe).of()
    assert visible(record) == {"id": 1, "name": "c", "body": "x" * 3000}
    assert record["_sdc_lsn"] > records[0]["_sdc_lsn"]


def test_records_of_the_log_have_the_values_that_records_of_the_table_have(log_pipe):  # noqa: F811
    pipe, types = log_pipe, {**ALIKE, **OURS}
    columns = ", ".join(f"c{number} {type_}" for number, type_ in enumerate(types))
    masks = {"secret": "sha256", "flag": "sha256", "note": "redact", "gone": "null"}
    pipe.tap |= {"masks": {"public-every": masks}, "mask_secret": "s"}
    with pipe.source(options=FIXED.replace("search_path=", "search_path=public")) as connection:
        connection.execute(SETUP)
        connection.execute(
            f"create table every (id int primary key, {columns}, secret text, flag bool, note char(3), gone int)"
        )
        publish(pipe, "every")
        marks = ", ".join(["%s"] * len(types))
        insert = f"insert into every values (%s, {marks}, 's3cret', true, 'ab', 1)"
        values = [value for value, _ in types.values()]
        connection.execute(insert, [1, *values])
        # the slot is older than the row, so the log has it too
        by_table, again = read(pipe, "every").of("every")
        connection.execute(insert, [2, *values])
        connection.execute("insert into every (id) values (3)")
    by_log, empty = read(pipe, "every").of("every")
    assert {**by_log, "id": 1, "_sdc_lsn": None} == {**again, "_sdc_lsn": None} == by_table
    assert set(visible(empty).values()) == {3, None}
    assert "s3cret" not in str(by_log)


def test_a_position_is_confirmed_only_when_a_run_begins_with_it(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    read(pipe)
    before = pipe.state
    pipe.do("update things set name = 'once'")
    pipe.do("create table busy as select repeat('x', 500) from generate_series(1, 9999)")
    assert len(read(pipe).of()) == 3
    assert lsn(pipe)[1] > 2**22, "nobody has said that these records were written"
    again, pipe.state = pipe.state, before
    assert len(read(pipe).of()) == 3, "a target that lost them gets them again"
    pipe.state = again
    assert read(pipe).records == []
    assert lsn(pipe)[1] < 2**20
    pipe.state = before
    sent = read(pipe)
    assert sent.status == 1
    assert "changes between them would be missed" in sent.log


def test_changes_from_before_a_column_was_renamed_are_sent_under_its_name_now_and_masked(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do("create table people (id int primary key, secret text, town text)")
    publish(pipe, "people")
    pipe.tap |= {"masks": {"public-people": {"secret": "sha256"}}, "mask_secret": "s"}
    read(pipe, "people")
    pipe.do("insert into people values (1, 's3cret', 'Oslo')")
    pipe.do("alter table people rename secret to hidden; alter table people rename town to city")
    pipe.do("insert into people values (2, 's3cret', 'Oslo')")
    pipe.tap |= {"masks": {"public-people": {"hidden": "sha256"}}}
    sent = read(pipe, "people")
    before, after = sent.of("people")
    assert visible(before) == {**visible(after), "id": 1}
    assert after["city"] == "Oslo"
    assert len(after["hidden"]) == 64
    assert "s3cret" not in str(sent.messages)


@pytest.mark.long
def test_stream_maps_apply_to_records_of_the_log(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    pipe.tap |= {"stream_maps": {"public-things": {"name": "name.upper() if name else None", "body": "__NULL__"}}}
    read(pipe)
    pipe.do("insert into things values (9, 'new', 'b')")
    (record,) = read(pipe).of()
    assert visible(record) == {"id": 9, "name": "NEW"}


def test_a_value_that_a_record_can_not_have_stops_its_stream_and_no_other(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table others (id int primary key, at date)")
    publish(pipe, "things", "others")
    read(pipe, "things", "others")
    pipe.do("insert into others values (1, 'infinity'); update things set name = 'c' where id = 1")
    sent = read(pipe, "things", "others")
    assert sent.status == 1
    assert "public.others.at has a value that records can't represent" in sent.log
    assert len(sent.of()) == 1
    positions = {name: entry.get("log") for name, entry in sent.states[-1]["bookmarks"].items()}
    assert positions["public-others"] == pipe.state["bookmarks"]["public-others"]["log"]
    assert positions["public-things"] != positions["public-others"]


def test_rows_that_leave_the_condition_are_deleted_from_other_targets_too(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; alter table things replica identity full")
    pipe.do(f"create publication {SLOT} for table things where (name = 'n')")
    pipe.do(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    pipe.tap |= {"where": {"public-things": "name = 'n'"}}
    assert len(read(pipe).of()) == 3
    pipe.do("update things set name = 'other' where id = 1; insert into things values (7, 'other')")
    (record,) = read(pipe).of()
    assert record["id"] == 1
    assert record["_sdc_deleted_at"]


def test_a_state_of_the_meltanolabs_tap_is_understood_and_its_settings_are_refused(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    pipe.state = {"bookmarks": {"public-things": {"replication_key": "_sdc_lsn", "replication_key_value": 23456}}}
    sent = read(pipe)
    assert "has a position of the MeltanoLabs tap's slot" in sent.log
    assert len(sent.of()) == 3
    assert "MeltanoLabs tap's slot" not in read(pipe).log
    pipe.tap["replication_slot_name"] = "tappostgres"
    sent = read(pipe)
    assert sent.status == 1
    assert "LOG_BASED streams follow the slot of slot_name" in sent.log


@pytest.mark.long
def test_another_target_has_the_rows_of_the_source_and_marks_deleted_ones(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; alter table things replica identity full")
    publish(pipe, "things")
    _, config = pipe.configs()
    settings = {name: value for name, value in json.loads(config.read_text()).items() if name != "hard_delete"}
    config = pipe._file("other.json", settings)

    def load() -> None:
        sent = read(pipe)
        assert sent.status == 0, sent.log
        lines = "".join(json.dumps(message) + "\n" for message in sent.messages)
        # its script has the name of one of ours in the same environment
        other = "from target_postgres.target import TargetPostgres; TargetPostgres.cli()"
        command = [TARGET.with_name("python"), "-c", other, "--config", config]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr

    load()
    pipe.do("insert into things values (4, 'new', 'b'); update things set name = 'c' where id = 1")
    pipe.do("delete from things where id = 2; update things set id = 30 where id = 3")
    load()
    assert pipe.rows("select id, name, length(body), _sdc_deleted_at is null from raw.things order by id") == [
        (1, "c", 3000, True),
        (2, "n", 3000, False),
        (3, "n", 3000, False),
        (4, "new", 1, True),
        (30, "n", 3000, True),
    ]


@pytest.mark.long
def test_a_killed_run_is_repeated_and_a_slow_target_keeps_the_session(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    pipe.tap["use_copy"] = False
    pipe.do("alter system set wal_sender_timeout = '6s'")
    pipe.do("select pg_reload_conf()")
    try:
        publish(pipe, "things")
        read(pipe)
        pipe.do("insert into things select i, 'n', repeat('y', 500) from generate_series(10, 40000) i")
        catalog = pipe.catalog({"public-things": LOG_BASED})
        pipe.tap["replication_max_run_seconds"] = 25
        processes = pipe.start(catalog, pipe.state)
        time.sleep(3)
        processes[-1].send_signal(signal.SIGSTOP)
        time.sleep(15)
        processes[-1].send_signal(signal.SIGCONT)
        done = pipe.finish(processes).ok()
        assert done.state["bookmarks"]["public-things"]["log"]
        pipe.tap["replication_max_run_seconds"] = 0
        pipe.do("update things set name = 'killed'")
        processes = pipe.start(catalog, done.state)
        time.sleep(1.5)
        kill(processes[0])
        pipe.finish(processes)
        pipe.sync(catalog, done.state).ok()
        assert pipe.rows("select count(*), count(*) filter (where name = 'killed') from raw.things") == [(39994, 39994)]
    finally:
        pipe.do("alter system reset wal_sender_timeout")
        pipe.do("select pg_reload_conf()")


@pytest.mark.long
def test_a_target_that_takes_no_record_ends_the_run_in_time_and_the_next_one_sends_all_again(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    read(pipe)
    pipe.do("insert into things select i, 'n', repeat('y', 500) from generate_series(10, 9999) i")
    pipe.tap |= {"replication_max_run_seconds": 600, "stall_seconds": 10, "use_copy": False}
    processes = pipe.start(pipe.catalog({"public-things": LOG_BASED}), pipe.state)
    processes[-1].send_signal(signal.SIGSTOP)
    try:
        assert processes[0].wait(timeout=40)
        with pipe.source() as connection:
            assert not connection.execute("select from pg_replication_slots where active").fetchall()
    finally:
        processes[-1].send_signal(signal.SIGCONT)
    line = pipe.finish(processes).refused("replication_failed")
    assert "The target has taken no record for 10 s (stall_seconds)" in line
    pipe.tap["replication_max_run_seconds"] = 0
    assert len(read(pipe).of()) == 9990, "nothing was confirmed"
