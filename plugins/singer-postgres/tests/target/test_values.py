"""Values arrive as they left, whichever JSON schema they come with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from singer_sdk.exceptions import InvalidRecord
from singer_sdk.sinks.core import JSONSchemaValidator

from conftest import CONNECTION
from singer_postgres.target.validation import RecordValidator
from test_records import record, schema

TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
ARRAYS = {"type": "array", "items": {"type": ["string", "null"]}}


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, JSON, st.lists(TEXT | st.none(), max_size=4)), min_size=1, max_size=50))
def test_text_arrays_and_json_arrive_as_they_left(ours, values):
    properties = {"id": {"type": "integer"}, "text": {"type": "string"}, "json": {"type": ["object", "array"]}}
    lines = [schema({**properties, "list": ARRAYS})]
    lines += [record(id=i, text=text, json={"v": json}, list=array) for i, (text, json, array) in enumerate(values)]
    ours.query("drop table if exists things")
    assert ours.feed(lines).error is None
    found = ours.query("select text, json -> 'v', list from things order by id")
    assert found == [(text, json, array) for text, json, array in values]


CASES = {
    "date-time with offset": ({"type": "string", "format": "date-time"}, "2026-01-01T05:00:00+05:00"),
    "date-time without": ({"type": "string", "format": "date-time"}, "2026-01-01T05:00:00.123456"),
    "date": ({"type": "string", "format": "date"}, "2026-01-01"),
    "time": ({"type": "string", "format": "time"}, "05:00:00"),
    "uuid": ({"type": "string", "format": "uuid"}, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "boolean": ({"type": "boolean"}, False),
    "number": ({"type": "number"}, 1.10),
    "large number": ({"type": "number"}, 12345678901234567890123),
    "boolean, number or text": ({"type": ["boolean", "number", "string"]}, True),
    "anything": ({}, {"a": [1.5, None]}),
    "number within an object": ({"type": "object"}, {"price": 1.10, "n": 10**20}),
    "array of objects": ({"type": "array", "items": {"type": "object"}}, [{"a": 'b"\\'}, {"c": [1]}]),
    "array of numbers": ({"type": "array", "items": {"type": "number"}}, [1.25, 2.5]),
    "array of anything": ({"type": "array"}, [1, "a", {"b": None}]),
    "empty array": ({"type": "array", "items": {"type": "integer"}}, []),
    "text of a backslash": ({"type": "string"}, "\\N"),
}


def columns(cases: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return the messages of one record, with a column for each case."""
    properties = {"id": {"type": "integer"}, **{name: type_ for name, (type_, *_) in cases.items()}}
    return [
        schema(properties),
        {**record(), "record": {"id": 1, **{name: value for name, (_, value, *_) in cases.items()}}},
    ]


def test_values_are_stored_as_the_stock_target_stores_them(targets):
    stock, ours = (targets[kind].feed(columns(CASES)) for kind in ("stock", "ours"))
    assert stock.error is None
    assert (ours.error, ours.columns, ours.rows) == (stock.error, stock.columns, stock.rows)


# what the stock target refuses
SEVERAL = {
    "whole and other numbers": ({"type": "array", "items": {"type": "number"}}, [1, 2.5], "{1,2.5}"),
    "booleans and text": ({"type": "array", "items": {"type": ["boolean", "string"]}}, [True, "a"], "{true,a}"),
    "boolean or text": ({"type": ["string", "boolean"]}, False, "false"),
}


def test_values_of_several_types_fit_one_column(ours):
    assert ours.feed(columns(SEVERAL)).error is None
    names = ", ".join(f'"{name}"::text' for name in SEVERAL)
    assert ours.query(f"select {names} from things") == [tuple(stored for _, _, stored in SEVERAL.values())]


def test_a_time_stamp_is_in_utc_whatever_the_time_zone_of_the_database(ours):
    type_ = {"type": "string", "format": "date-time"}
    lines = [schema({"id": {"type": "integer"}, "v": type_}), record(id=1, v="2026-01-01T05:00:00+05:00")]
    database = sql.Identifier(CONNECTION["database"]).as_string()
    ours.query(f"alter database {database} set timezone = 'Asia/Tokyo'")
    try:
        assert ours.feed(lines).rows["things"] == ['(1,"2026-01-01 00:00:00")']
    finally:
        ours.query(f"alter database {database} reset timezone")


@pytest.mark.parametrize("type_", [{"type": "string"}, {"type": "object"}, ARRAYS], ids=["text", "json", "array"])
def test_nul_characters_are_replaced_when_told_so_and_refused_otherwise(type_, ours):
    value: Any = {"string": "a\0b", "object": {"a": ["\0", r"\u0000"]}, "array": ["a", "\0"]}[type_["type"]]
    lines = [schema({"id": {"type": "integer"}, "v": type_}), record(id=1, v=value)]
    assert ours.feed(lines).error == "DataError"
    assert ours.feed(lines, sanitize_null_text_characters=True).error is None
    [(text,)] = ours.query("select v::text from things")
    assert "\ufffd" in text
    assert (r"\\u0000" in text) == (type_["type"] == "object")


# generated code and the SDK's validator agree

TYPES = st.lists(
    st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"]), min_size=1, unique=True
)
# the last ones mean something else, or nothing, before draft 2020-12
PROPERTY = st.recursive(
    st.fixed_dictionaries({"type": TYPES}, optional={"default": st.just("x")})
    | st.sampled_from(
        [
            *({}, {"type": "string", "maxLength": 2}, {"enum": ["a", 1]}, {"const": [False]}, {"uniqueItems": True}),
            *({"type": "string", "format": "date"}, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            *({"minimum": 2}, {"pattern": "^a$"}, {"not": {"type": "null"}}),
            *({"prefixItems": [{"type": "string"}]}, {"dependentRequired": {"a": ["b"]}}, {"multipleOf": 3}),
            *({"contains": {"type": "null"}, "minContains": 2}, {"unevaluatedProperties": False}),
            {"dependencies": {"a": ["b"]}},
        ]
    ),
    lambda inner: (
        st.fixed_dictionaries({"type": TYPES, "items": inner})
        | st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2)})
    ),
    max_leaves=3,
)
SCHEMA = st.fixed_dictionaries(
    {"properties": st.dictionaries(st.sampled_from("abc"), PROPERTY)},
    optional={
        "type": st.just("object"),
        "required": st.lists(st.sampled_from("abc"), unique=True),
        "additionalProperties": st.booleans(),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    SCHEMA,
    st.dictionaries(st.sampled_from("abcd"), JSON | st.floats() | st.decimals(allow_nan=False, allow_infinity=False)),
)
def test_a_record_is_refused_exactly_when_the_sdk_refuses_it(described, values):
    errors, before = [], {**values}
    for validator in (JSONSchemaValidator(described), RecordValidator(described)):
        try:
            validator.validate(values)
            errors.append(None)
        except InvalidRecord as error:
            errors.append(str(error))
    assert errors[0] == errors[1]
    assert values.keys() == before.keys()
