"""Input that no healthy tap sends, and state that no healthy run leaves, lead to one line and do not change raw."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests import programs
from tests.programs import TAP, TARGET
from tests.singer.conftest import INCREMENTAL
from tests.singer.test_target import END, LATE, Messages, notes

SCHEMA = {
    "type": "SCHEMA",
    "stream": "public-orders",
    "schema": {"type": "object", "properties": {"id": {"type": "integer"}, "note": {"type": ["string", "null"]}}},
    "key_properties": ["id"],
}
RECORD = {"type": "RECORD", "stream": "public-orders", "record": {"id": 2, "note": "b"}}
STATE = {"type": "STATE", "value": {"bookmarks": {"public-orders": {"replication_key_value": LATE}}}}
# the last line of the input, and a word of the error
MALFORMED = {
    "no JSON": ("}{", "line 3"),
    "cut off": (json.dumps(RECORD)[:-9], "line 3"),
    "no object": ("[1, 2]", "line 3"),
    "no type": ('{"stream": "public-orders"}', "of type None"),
    "an unknown type": ('{"type": "ROW", "stream": "public-orders"}', "ROW"),
    "a record without a stream": ('{"type": "RECORD", "record": {"id": 1}}', "stream"),
    "a record without a record": ('{"type": "RECORD", "stream": "public-orders"}', "record"),
    "a record of a stream without a schema": (json.dumps({**RECORD, "stream": "public-notes"}), "public-notes"),
    "a record without its key": (json.dumps({**RECORD, "record": {"note": "b"}}), "id"),
    "a state without a value": ('{"type": "STATE"}', "value"),
    "a batch without an encoding": ('{"type": "BATCH", "stream": "public-orders", "manifest": []}', "encoding"),
    "a schema without properties": ('{"type": "SCHEMA", "stream": "x", "schema": {}, "key_properties": []}', "x"),
    "a zero byte": ('{"type": "RECORD", \x00}', "line 3"),
    "no UTF-8": (b'{"type": "RECORD", "stream": "public-orders", "record": {"id": 3, "note": "\xff"}}', "UTF-8"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_message_ends_the_run_with_one_line_and_its_rows_are_not_loaded(pipe, kind):
    messages = Messages(pipe)
    messages.schema().chunk({1: "a"}).batch(END).ok()
    line, told = MALFORMED[kind]
    content = b"\n".join(
        part if isinstance(part, bytes) else part.encode()
        for part in (json.dumps(SCHEMA), json.dumps(RECORD), line, json.dumps(STATE), "")
    )
    path = pipe.directory / "lines"
    path.write_bytes(content)
    done = programs.run([TARGET, "--config", pipe.configs()[1], "--input", path], env=pipe.environment())
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = [each for each in done.stderr.splitlines() if "| ERROR" in each]
    assert told in error
    code = "record_invalid" if kind == "a record without its key" else "message_invalid"
    assert {failure["code"] for failure in pipe.failures()} == {code}
    assert LATE not in done.stdout, "no state is emitted for rows that were not loaded"
    assert notes(messages) == {1: "a"}


ORDERS = """
    create table orders (id int primary key, updated_at timestamptz default now());
    insert into orders values (1);
"""
STATES = {
    "of no position in a log": ({"log": ["slot", "nowhere", [[1, 2]]]}, "has log"),
    "no JSON": ("{", "JSON"),
    "a list": ("[]", "not an object"),
    "of another tap": ('{"bookmarks": {"public-orders": 7}}', "public-orders"),
    "not an object of streams": ('{"bookmarks": []}', "bookmarks"),
    "a bookmark that is not a time": (
        {"replication_key": "updated_at", "replication_key_value": "yesterday"},
        "yesterday",
    ),
    "of a newer release": (
        {"replication_key": "updated_at", "replication_key_value": LATE, "shape": [1, 2, [], [], "new"]},
        "newer release",
    ),
    "an invalid shape": ({"replication_key": "updated_at", "replication_key_value": LATE, "shape": 1}, "shape"),
    "an invalid first load": ({"first_load": [LATE, [[1]]]}, "first_load"),
}


@pytest.mark.parametrize(
    "kind",
    [
        "of another tap",
        "of a newer release",
        "of no position in a log",
        *(pytest.param(each, marks=pytest.mark.long) for each in STATES if not each.startswith("of ")),
    ],
)
def test_unusable_state_is_reported_in_one_line_and_nothing_is_read(pipe, kind):
    pipe.do(ORDERS)
    content, told = STATES[kind]
    text = content if isinstance(content, str) else json.dumps({"bookmarks": {"public-orders": content}})
    path = pipe.directory / "bad-state.json"
    path.write_text(text)
    catalog = pipe._file("catalog.json", pipe.catalog({"public-orders": INCREMENTAL}))
    done = subprocess.run(
        [TAP, "--config", pipe.configs()[0], "--catalog", catalog, "--state", path],
        env=pipe.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = [each for each in done.stderr.splitlines() if "| ERROR" in each]
    assert told in error
    # a file that is not JSON is refused like a file of settings
    code = "setting_invalid" if kind == "no JSON" else "state_invalid"
    assert {failure["code"] for failure in pipe.failures()} == {code}
    assert '"BATCH"' not in done.stdout


def test_state_of_streams_that_no_longer_exist_is_kept(pipe):
    pipe.do(ORDERS)
    other = {"replication_key": "updated_at", "replication_key_value": LATE}
    state = pipe.sync({"public-orders": INCREMENTAL}, {"bookmarks": {"public-gone": other}}).ok().state
    assert state["bookmarks"]["public-gone"] == other
