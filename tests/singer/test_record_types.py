"""Values of every type as RECORD messages: values that JSON can hold arrive unchanged."""

from __future__ import annotations

import re

import pytest

from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.kinds import SETUP
from tests.singer.sample import FIXED, Column, Sample, kinds_of, set_oddly
from tests.singer.values import Kind, array_texts

# values that JSON, or Python in between, can't hold: RECORD messages have no text form as COPY has
_NUMBERS = {"float4", "float8", "numeric", "numeric_12_2", "numeric_3_n2", "numeric_2_5", "number_named_so"}
_DAYS = {"date", "timestamp", "timestamp_0", "timestamptz", "timestamptz_3"}
# these arrays come as text: of domains, whose type the driver does not know, and with ; as a delimiter
_NO_ARRAYS = {"price", "net_price", "number_named_so", "prices", "box", "a_box"}


def as_records(kind: Kind) -> list[str]:
    """Return the values of a kind that RECORD messages can hold."""
    values = kind.values
    if kind.name in _NUMBERS:
        # JSON has no number for these, and the SDK writes null for numbers beyond a float's range
        values = [value for value in values if re.match(r"[-.\de]{,300}$", value)]
    elif kind.name in _DAYS:
        # beyond Python's calendar
        values = [value for value in values if re.match(r"\d{4}-", value) and "BC" not in value]
    elif kind.name in {"time", "time_3"}:
        # in Python, a day ends before 24:00
        values = [value for value in values if not re.match(r"24:|23:59:59.9995", value)]
    elif kind.name == "bpchar":
        # the cast to text drops trailing blanks, which mean nothing in this type
        values = [value.rstrip(" ") for value in values]
    elif kind.name in {"json", "jsonb"}:
        # the value arrives, but its text changes: white space, escapes, duplicate names, 1.00,
        # digits beyond a float's; and null becomes SQL's
        values = ["{}", "[]", '""', '"a\\tb"', '{"a": [1, 1.5, true], "b": {"c": null}}', "12345678901234567890"]
    return values


def test_values_of_every_type_arrive_as_records_except_those_that_json_can_not_hold(pipe):
    with pipe.source(options=FIXED.replace("search_path=", "search_path=public")) as connection:
        connection.execute(SETUP)
    set_oddly(pipe)
    pipe.tap["use_copy"] = False
    made = []
    for kind in kinds_of(pipe):
        values = as_records(kind)
        if kind.name != "prices":
            made.append(Column(kind.name, kind.type, values, kind.lands))
        if kind.array != "" and kind.name not in _NO_ARRAYS:
            # one dimension, starting at 1: a JSON schema knows no other arrays
            arrays = ["{}", "{NULL}", *(array_texts(values)[2:3] if values else [])]
            made.append(Column(f"{kind.name}_array", f"{kind.type}[]", arrays, kind.array))
    sample = Sample(pipe, "every", made)
    state = pipe.sync({"public-every": INCREMENTAL}).ok().state
    sample.check()
    before = sample.written_by()
    sample.put([1, 2], shift=1)
    pipe.sync({"public-every": INCREMENTAL}, state).ok()
    sample.check()
    assert {id_ for id_, xids in sample.written_by().items() if xids != before[id_]} == {1, 2}
    # records and chunks bring the same values
    pipe.tap["use_copy"] = True
    again = sample.written_by()
    pipe.sync({"public-every": INCREMENTAL}).ok()
    assert sample.written_by() == again


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("double precision", "NaN"),
        ("numeric", "1e400"),
        ("time", "24:00"),
        ("date", "infinity"),
        ("int[]", "[0:1]={1,2}"),
        ("timestamptz", "0044-03-15 12:00:00+00 BC"),
    ],
)
def test_a_value_that_records_cannot_carry_is_refused_and_never_altered(pipe, type_, value):
    pipe.tap["use_copy"] = False
    pipe.do(f"create table a (id int primary key, v {type_}); insert into a values (1, '{value}')")
    synced = pipe.sync({"public-a": FULL_TABLE})
    if (synced.tap_status, synced.target_status) == (0, 0):
        assert pipe.rows(f"select v = '{value}', v::text from raw.a")[0][0] is True
