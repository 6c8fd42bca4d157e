"""What those who send records to the MeltanoLabs target rely on: the same here, said twice, or better, said once."""

from __future__ import annotations

import gzip
import io
import json
from contextlib import nullcontext
from typing import Any

import pytest
from singer_sdk.exceptions import InvalidInputLine

from singer_postgres.core.warehouse.connections import WarehouseConnector

# `make test-long` looks whether the stock target still does the same
BOTH = pytest.mark.parametrize("kind", [pytest.param("stock", marks=pytest.mark.long), "ours"])
NUMBERS = {"id": {"type": "integer"}, "n": {"type": ["integer", "null"]}}


def schema(properties: dict[str, Any], key: tuple[str, ...] = ("id",), stream: str = "things") -> dict[str, Any]:
    body = {"type": "object", "properties": properties}
    return {"type": "SCHEMA", "stream": stream, "schema": body, "key_properties": list(key)}


def record(stream: str = "things", *, version: int | None = None, **values: Any) -> dict[str, Any]:
    message = {"type": "RECORD", "stream": stream, "record": values, "version": version}
    return {name: value for name, value in message.items() if value is not None}


def version(number: int) -> dict[str, Any]:
    return {"type": "ACTIVATE_VERSION", "stream": "things", "version": number}


def whole(number: int, ids: range) -> list[dict[str, Any]]:
    """Return the messages of a stream read whole."""
    return [schema(NUMBERS), *(record(version=number, id=id_, n=0) for id_ in ids), version(number)]


# runs


def test_a_target_listens_more_than_once_each_time_in_a_run_of_its_own(ours):
    target = ours.target(hard_delete=True)
    given = [whole(1, range(4)), [*whole(2, range(3)), "no JSON"], whole(3, range(1, 3))]
    for number, lines in enumerate(given):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        with pytest.raises(InvalidInputLine) if number == 1 else nullcontext():
            target.listen(io.StringIO(text))
    target.target_connector._engine.dispose()
    assert ours.query("select id, _sdc_table_version from things order by id") == [(1, 3), (2, 3)]
    runs = "select outcome from _tidemark_runs order by started_at"
    assert ours.query(runs) == [("succeeded",), ("failed",), ("succeeded",)]
    # nobody is kept out after it
    assert ours.feed(whole(4, range(2))).error is None


# versions


@BOTH
def test_rows_of_an_older_version_are_deleted_and_those_that_came_again_unchanged_are_not(kind, targets):
    target = targets[kind]
    target.feed(whole(1, range(4)), hard_delete=True)
    target.feed(whole(2, range(1, 4)), hard_delete=True)
    assert target.query("select id, _sdc_table_version from things order by id") == [(1, 2), (2, 2), (3, 2)]


@BOTH
def test_rows_of_an_older_version_are_marked_as_deleted_and_unmarked_when_they_return(kind, targets):
    target = targets[kind]
    for number, ids, deleted in [(1, range(3), []), (2, range(2), [(2,)]), (3, range(3), [])]:
        target.feed(whole(number, ids))
        assert target.query("select id from things where _sdc_deleted_at is not null") == deleted


def test_a_row_marked_as_deleted_is_stamped_for_incremental_models(ours):
    ours.feed(whole(1, range(2)))
    before = dict(ours.query("select id, _tidemark_loaded_xid::text::bigint from things"))
    ours.feed(whole(2, range(1)))
    after = dict(ours.query("select id, _tidemark_loaded_xid::text::bigint from things"))
    assert after[1] > before[1]


@BOTH
def test_a_version_is_left_alone_when_told_so(kind, targets):
    target = targets[kind]
    target.feed(whole(1, range(2)), hard_delete=True, activate_version=False)
    target.feed(whole(2, range(1)), hard_delete=True, activate_version=False)
    assert target.query("select id from things order by id") == [(0,), (1,)]


# batches, keys, schemas


@BOTH
def test_records_without_a_key_are_appended_at_each_run(kind, targets):
    for _ in range(2):
        targets[kind].feed([schema(NUMBERS, key=()), record(id=1, n=1), record(id=1, n=1)])
    assert targets[kind].query("select count(*) from things") == [(4,)]


@BOTH
def test_a_batch_that_fails_leaves_the_batches_before_it(kind, targets):
    lines = [schema({"id": {"type": "integer"}, "n": {"type": "integer", "maximum": 10}}), record(id=1, n=1)]
    # above what the column, a smallint by its maximum and minimum, can hold: the database refuses it
    lines[0]["schema"]["properties"]["n"] |= {"minimum": 0}
    lines += [record(id=2, n=2), record(id=3, n=99_999), record(id=4, n=4)]
    outcome = targets[kind].feed(lines, batch_size_rows=2, validate_records=False)
    assert outcome.error == "DataError"
    assert outcome.rows["things"] == ["(1,1)", "(2,2)"]


def test_a_state_is_told_once_what_came_before_it_is_committed_and_no_sooner(ours):
    lines = [schema(NUMBERS), record(id=1), {"type": "STATE", "value": {"at": 1}}, record(id=2), record(id=3)]
    lines += [{"type": "STATE", "value": {"at": 3}}, record(n=4)]
    outcome = ours.feed(lines, batch_size_rows=2)
    assert outcome.error == "MissingKeyPropertiesError"
    assert outcome.states == [{"at": 1}]
    assert outcome.rows["things"] == ["(1,)", "(2,)"]


@BOTH
@pytest.mark.parametrize(
    ("values", "error"), [({"n": 1}, "MissingKeyPropertiesError"), ({"id": None, "n": 1}, "IntegrityError")]
)
def test_a_record_without_its_key_is_refused(kind, targets, values, error):
    properties = {**NUMBERS, "id": {"type": ["integer", "null"]}}
    assert targets[kind].feed([schema(properties), {**record(), "record": values}]).error == error


@BOTH
def test_columns_are_added_and_those_that_are_gone_stay(kind, targets):
    targets[kind].feed([schema(NUMBERS), record(id=1, n=1)])
    outcome = targets[kind].feed(
        [schema({"id": {"type": "integer"}, "Neu": {"type": "string"}}), record(id=1, Neu="a"), record(id=2, Neu="b")]
    )
    assert outcome.columns["things"] == {"Neu": "text", "id": "bigint not null", "n": "bigint"}
    assert outcome.rows["things"] == ["(a,1,1)", "(b,2,)"]


def test_records_of_an_older_schema_never_overwrite_those_of_a_newer_one(ours):
    wider = {**NUMBERS, "more": {"type": "string"}}
    lines = [schema(NUMBERS), record(id=1, n=1), schema(wider), record(id=1, n=2), record(id=2, n=2)]
    ours.feed(lines, batch_size_rows=2)
    assert ours.query("select id, n from things order by id") == [(1, 2), (2, 2)]


@BOTH
@pytest.mark.parametrize("method", ["append-only", "upsert"])
def test_each_load_method_upserts(kind, targets, method):
    for n in (1, 2):
        targets[kind].feed([schema(NUMBERS), record(id=n, n=n), record(id=7, n=n)], load_method=method)
    assert targets[kind].query("select id, n from things order by id") == [(1, 1), (2, 2), (7, 2)]


@BOTH
def test_metadata_is_left_out_when_told_so(kind, targets):
    lines = [schema(NUMBERS), record(id=1, n=1, _sdc_sequence=5)]
    outcome = targets[kind].feed(lines, add_record_metadata=False, activate_version=False)
    assert (outcome.error, outcome.rows["things"]) == (None, ["(1,1)"])
    if kind == "ours":
        # the columns are there, so that they can be filled later
        assert targets[kind].query("select _sdc_sequence, _sdc_batched_at from things") == [(None, None)]


@BOTH
@pytest.mark.parametrize("compression", ["gzip", None])
def test_files_of_json_lines_are_loaded(kind, targets, compression, tmp_path):
    path = tmp_path / "batch.jsonl"
    content = "".join(json.dumps({"id": id_, "n": 1}) + "\n" for id_ in range(5)).encode()
    path.write_bytes(gzip.compress(content) if compression else content)
    encoding = {"format": "jsonl", "compression": compression}
    batch = {"type": "BATCH", "stream": "things", "encoding": encoding, "manifest": [path.as_uri()]}
    outcome = targets[kind].feed([schema(NUMBERS), batch, {"type": "STATE", "value": {"at": 5}}])
    assert (outcome.error, outcome.states) == (None, [{"at": 5}])
    assert len(outcome.rows["things"]) == 5


# what only ours does


def test_a_table_that_the_stock_target_made_is_taken_over(targets):
    lines = [schema({**NUMBERS, "at": {"type": "string", "format": "date-time"}})]
    targets["stock"].feed([*lines, record(id=1, n=1), record(id=2, n=2, at="2026-01-01T02:00:00+02:00")])
    targets["ours"].schema = targets["stock"].schema
    outcome = targets["ours"].feed([*lines, record(id=1, n=10), record(id=3, n=3, at="2026-01-01T02:00:00+02:00")])
    assert outcome.error is None
    assert set(outcome.rows["things"]) == {"(,1,10)", '("2026-01-01 00:00:00",2,2)', '("2026-01-01 00:00:00",3,3)'}


def test_a_record_that_is_there_already_is_not_written_again(ours):
    lines = [schema(NUMBERS), *(record(id=id_, n=id_) for id_ in range(5))]
    ours.feed(lines)
    before = ours.query("select ctid::text, _tidemark_loaded_xid::text from things order by id")
    ours.feed([*lines, record(id=3, n=4)])
    after = ours.query("select ctid::text, _tidemark_loaded_xid::text from things order by id")
    assert [was == is_ for was, is_ in zip(before, after, strict=True)] == [True, True, True, False, True]


def test_a_tap_may_have_more_streams_than_the_server_has_connections(ours, monkeypatch):
    connected = []
    connect = WarehouseConnector.connect
    monkeypatch.setattr(WarehouseConnector, "connect", lambda warehouse: connected.append(1) or connect(warehouse))
    names = [f"stream_{number}" for number in range(30)]
    lines = [line for name in names for line in (schema(NUMBERS, stream=name), record(name, id=1))]
    assert len(ours.feed(lines).rows) == len(names)
    # the SDK drains eight at a time
    assert len(connected) <= 8


def test_a_column_has_the_type_that_its_schema_names_and_no_other_words_get_into_the_statement(ours):
    named = {"id": "uuid", "price": "numeric(12,2)", "odd": "text(1; drop table things; --)", "none": "no_such_type"}
    properties = {name: {"type": "string", "x-sql-datatype": type_} for name, type_ in named.items()}
    outcome = ours.feed([schema(properties), record(id="00000000-0000-0000-0000-000000000001", price="1.5")])
    assert outcome.error is None
    assert outcome.columns["things"] == {"id": "uuid not null", "price": "numeric(12,2)", "odd": "text", "none": "text"}


@pytest.mark.parametrize("name", ["x" * 64, "ö" * 32])
def test_a_name_that_postgresql_would_cut_is_refused(ours, name):
    assert ours.feed([schema({**NUMBERS, name: {"type": "string"}})]).error == "NameTakenError"
    assert name in ours.message
