"""Values of every PostgreSQL type as text for a server: odd ones by hand, more from Hypothesis.

A run of tap and target takes seconds, so values are drawn beforehand, column by column, and loaded together.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import date
from functools import cache
from ipaddress import ip_network
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, configuration, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Hypothesis rebuilds its database quickly, so it does not belong in the repository
configuration.set_hypothesis_home_dir(tempfile.gettempdir() + "/tidemark-hypothesis")

_DRAWN = 20


@dataclass(frozen=True)
class Kind:
    """A type and its values.

    Attributes:
        name: the column's name.
        type: the type in the source.
        odd: values that often cause trouble.
        more: a strategy for further values.
        lands: the warehouse's type, as format_type() prints it; None for the source's type.
        array: the same for its array; "" for no array.
        delimiter: the delimiter in its arrays.
        since: the first PostgreSQL version with all the values.
    """

    name: str
    type: str
    odd: tuple[str, ...] = ()
    more: st.SearchStrategy[str] | None = None
    lands: str | None = None
    array: str | None = None
    delimiter: str = ","
    since: int = 15

    @property
    def values(self) -> list[str]:
        return [*self.odd, *(_drawn(self.more) if self.more is not None else ())]

    def arrays(self) -> list[str]:
        """Return arrays of the values: empty, nested, with nulls, with other bounds."""
        return array_texts(self.values, self.delimiter)


@cache
def _drawn(strategy: st.SearchStrategy[str], count: int = _DRAWN) -> tuple[str, ...]:
    found: list[str] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(value: str) -> None:
        found.append(value)

    draw()
    return tuple(found)


# helpers that compose texts


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _array(values: Sequence[str | None], delimiter: str) -> str:
    return "{" + delimiter.join("NULL" if value is None else _quoted(value) for value in values) + "}"


def array_texts(values: Sequence[str], delimiter: str = ",") -> list[str]:
    rows = [_array([value, None], delimiter) for value in values]
    nested = [f"{{{rows[i]}{delimiter}{rows[-1 - i]}}}" for i in range(min(3, len(rows)))]
    cube = f"{{{nested[0]}{delimiter}{nested[-1]}}}"
    bounded = [f"[-1:0]={rows[0]}", f"[5:6][-2:-1]={nested[0]}"]
    return ["{}", "{NULL}", _array(values[:9], delimiter), *nested, cube, *bounded, *rows[1:]]


def _row(*fields: str | None) -> str:
    return "(" + ",".join("" if field is None else _quoted(field) for field in fields) + ")"


# strategies; none draws NUL, which PostgreSQL's text can't hold

_INT2, _INT4, _INT8 = (st.integers(-(2**bits), 2**bits - 1) for bits in (15, 31, 63))
_UINT4 = st.integers(0, 2**32 - 1)
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
_ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=126), max_size=8)
_WORD = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=8)
_FLOAT8 = st.floats().map(repr)
_FLOAT4 = st.floats(width=32).map(repr)
_NUMERIC = st.from_regex(r"-?[0-9]{1,60}(\.[0-9]{0,40})?", fullmatch=True)
_DIGITS = "1234567890" * 100
_JSON = st.recursive(
    st.none() | st.booleans() | _INT8 | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(_TEXT, part, max_size=3),
    max_leaves=6,
)


@st.composite
def _days(draw: st.DrawFn, last: int) -> str:
    year = draw(st.integers(1, 9999) | st.integers(1, last) | st.integers(-4712, -1))
    day = f"{abs(year):04}-{draw(st.integers(1, 12)):02}-{draw(st.integers(1, 28)):02}"
    return day + (" BC" if year < 0 else "")


def _times() -> st.SearchStrategy[str]:
    hours, sixty, micros = st.integers(0, 23), st.integers(0, 59), st.integers(0, 999_999) | st.just(0)
    return st.builds("{:02}:{:02}:{:02}.{:06}".format, hours, sixty, sixty, micros)


def _offsets() -> st.SearchStrategy[str]:
    parts = (st.sampled_from("+-"), st.integers(0, 15), st.integers(0, 59), st.integers(0, 59))
    return st.builds("{}{:02}:{:02}:{:02}".format, *parts)


def _instants(zone: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def put(day: str, time: str, offset: str) -> str:
        head, space, era = day.partition(" ")
        return f"{head} {time}{offset}{space}{era}"

    return st.builds(put, _days(294_000), _times(), zone)


_TIMESTAMP, _TIMESTAMPTZ = _instants(st.just("")), _instants(_offsets())
_DATE = _days(5_874_000)
_INTERVAL = st.builds(
    "{} mons {} days {}{}:{:02}:{:02}.{:06}".format,
    st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-30, 30),
    _INT4 | st.integers(-40, 40),
    st.sampled_from(["", "-"]),
    st.integers(0, 2_562_047_787) | st.integers(0, 30),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 999_999),
)
_IP = st.ip_addresses().map(str)


def _hosts() -> st.SearchStrategy[str]:
    return st.builds(lambda ip, bits: f"{ip}/{bits % (129 if ':' in ip else 33)}", _IP, st.integers(0, 999))


def _networks() -> st.SearchStrategy[str]:
    return _hosts().map(lambda host: str(ip_network(host, strict=False)))


def _hexadecimal(length: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=length, max_size=length).map(bytes.hex)


_BITS = st.text("01", max_size=70)
_POINT = st.builds("({},{})".format, _FLOAT8, _FLOAT8)
_POINTS = st.lists(_POINT, min_size=1, max_size=4).map(",".join)


def _line(parts: tuple[float, float, float]) -> str:
    # a and b may not both be within 1e-6 of zero
    a, b, c = parts
    return f"{{{abs(a) + 1!r},{b!r},{c!r}}}"


_FINITE = st.floats(allow_nan=False, allow_infinity=False)


def _lexeme(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


_VECTOR = st.lists(
    st.builds("{}{}".format, _WORD.map(_lexeme), st.sampled_from(["", ":1", ":3A,16383B", ":7C,2D"])), max_size=6
).map(" ".join)
_QUERY = st.recursive(
    st.builds("{}{}".format, _WORD.map(_lexeme), st.sampled_from(["", ":*", ":AB", ":*D"])),
    lambda part: (
        st.builds("({} {} {})".format, part, st.sampled_from(["&", "|", "<->", "<9>"]), part) | part.map("!{}".format)
    ),
    max_leaves=5,
)


def _ranges(
    bound: st.SearchStrategy[object], text: Callable[[object], str], *, multi: bool = False
) -> st.SearchStrategy[str]:
    @st.composite
    def draw(draw: st.DrawFn) -> str:
        shape = draw(st.sampled_from(["empty", "both", "both", "both", "left", "right", "none"]))
        if shape == "empty":
            return "{}" if multi else "empty"
        low, high = sorted([draw(bound), draw(bound)])  # type: ignore[type-var]
        left = "" if shape in {"left", "none"} else f'"{text(low)}"'
        right = "" if shape in {"right", "none"} else f'"{text(high)}"'
        made = draw(st.sampled_from("[(")) + f"{left},{right}" + draw(st.sampled_from("])"))
        return f"{{{made}}}" if multi else made

    return draw()


def _bounds() -> Iterator[tuple[str, st.SearchStrategy[object], Callable[[object], str]]]:
    yield "int4", st.integers(-(2**31) + 1, 2**31 - 2), str
    yield "int8", st.integers(-(2**63) + 1, 2**63 - 2), str
    yield "num", st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20), str
    yield "date", st.dates(max_value=date(9999, 12, 30)), str
    yield "ts", st.datetimes(), str
    yield "tstz", st.datetimes(), "{}+05:30".format
