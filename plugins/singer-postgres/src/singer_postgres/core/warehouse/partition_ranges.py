"""The ranges of one partitioned table: which there are, and those that rows need, which are made."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")
INTEGERS = ("smallint", "integer", "bigint")
TIMES = ("date", "timestamp without time zone", "timestamp with time zone")
# more of them make each query on the table slow to plan
MOST = 1000
# PostgreSQL looks at each of them for each partition, when it plans
_MOST_CONDITIONS = 50
_NAME_BYTES = 63
# of ranges of a table that has none yet, and for which no setting says it
_DEFAULT_COUNT, _DEFAULT_UNIT = 10_000_000, "month"
_BOUNDS = r"""
    select bound[1] as lower, bound[2] as upper
    from pg_catalog.pg_inherits join pg_catalog.pg_class on oid = inhrelid
    cross join lateral pg_catalog.regexp_match(
        pg_catalog.pg_get_expr(relpartbound, oid), '^FOR VALUES FROM \((.*)\) TO \((.*)\)$'
    ) as bound
    where inhparent = to_regclass(%s)
"""
_END = {"MINVALUE", "MAXVALUE"}
# Bounds of aligned ranges, as numbers that have the order of the values, and as texts. Division cuts towards zero.
_OF_NUMBERS = """
    SELECT n * {width}, (n + 1) * {width}, (n * {width})::text, ((n + 1) * {width})::text FROM (
        SELECT DISTINCT ({value} / {width} - ({value} % {width} < 0)::int)::numeric AS n FROM {stage} s
        WHERE {value} IS NOT NULL
    ) numbers
"""
_OF_TIMES = """
    SELECT (extract(epoch FROM l::timestamptz) * 1000000)::bigint,
        (extract(epoch FROM u::timestamptz) * 1000000)::bigint, l::{type}::text, u::{type}::text
    FROM (
        SELECT l, l + {step} AS u FROM (SELECT DISTINCT {start} AS l FROM {stage} s WHERE {value} IS NOT NULL) starts
    ) ranges
"""
_NUMBERED = """
    SELECT bound, (extract(epoch FROM bound::{}::timestamptz) * 1000000)::bigint FROM unnest(%s::text[]) AS bound
"""
# of infinite times, and of those so far away that the next year is no time any more
_HAVE_RANGES = "SELECT bool_and({value} >= '4700-01-01 BC'::{type} AND {value} < '290000-01-01'::{type}) FROM {stage} s"

Width = int | str


class Ranges:
    """The ranges of one table. A bound is a whole number, in the order of the values, and the text of a value."""

    def __init__(self, connection: Connection, schema: str, table: str, type_: str) -> None:
        self._connection, self._schema, self._table, self._type = connection, schema, table, type_
        self._name = sql.Identifier(schema, table)
        self._texts: dict[float, str] = {}
        self._look()

    def _look(self) -> None:
        """Read which ranges there are."""
        found = self._connection.execute(_BOUNDS, [self._name.as_string(self._connection)]).fetchall()
        self.has_default = any(lower is None for lower, _ in found)
        bounds = [bound.strip("'") for row in found if row[0] is not None for bound in row]
        numbers = self._numbers([bound for bound in bounds if bound not in _END])
        self._there = [
            (numbers.get(lower, float("-inf")), numbers.get(upper, float("inf")))
            for lower, upper in zip(bounds[::2], bounds[1::2], strict=True)
        ]
        self._texts |= {number: text for text, number in numbers.items()}

    def _numbers(self, bounds: Sequence[str]) -> dict[str, int]:
        if self._type in INTEGERS:
            return {bound: int(bound) for bound in bounds}
        query = sql.SQL(_NUMBERED).format(sql.SQL(self._type))
        return dict(self._connection.execute(query, [list(bounds)]).fetchall())

    @property
    def bounds(self) -> list[tuple[str | None, str | None]]:
        """The texts of the bounds, in the order of the ranges; None for an end that is open."""
        return [(self._texts.get(lower), self._texts.get(upper)) for lower, upper in sorted(self._there)]

    @property
    def widest(self) -> Width:
        """The width of the widest range with two ends, or a usual width if no range has two ends."""
        widths = [upper - lower for lower, upper in self._there if upper - lower != float("inf")]
        if not widths:
            return _DEFAULT_COUNT if self._type in INTEGERS else _DEFAULT_UNIT
        if self._type in INTEGERS:
            return int(max(widths))
        days = max(widths) / 86_400e6
        least = {"year": 365, "month": 28, "week": 7}
        return next((unit for unit, needed in least.items() if days >= needed), "day")

    def make(self, stage: sql.Composable, column: str, width: Width) -> sql.Composable | None:
        """Make the ranges for a column's values; return the condition that they are in these ranges."""
        value = sql.Identifier(column)
        if isinstance(width, str):
            have_ranges = sql.SQL(_HAVE_RANGES).format(value=value, type=sql.SQL(self._type), stage=stage)
            if self._connection.execute(have_ranges).fetchone() == (False,):
                self._lock()
                self._make_default("times that no range can hold")
                return None
        needed = self._connection.execute(self._aligned(stage, value, width)).fetchall()
        for lower, upper, lower_text, upper_text in needed:
            self._texts |= {lower: lower_text, upper: upper_text}
        wanted_ = [(lower, upper) for lower, upper, *_ in needed]
        if any(gaps(wanted_, self._there)):
            self._lock()
            missing = list(gaps(wanted_, self._there))
            if missing and len(self._there) + len(missing) > MOST:
                self._make_default(f"more than {MOST} ranges of {width}")
            if self.has_default:
                return None
            for lower, upper in missing:
                bounds = self._bound(lower) or sql.SQL("MINVALUE"), self._bound(upper) or sql.SQL("MAXVALUE")
                self._attach(self._suffix(lower), sql.SQL("FOR VALUES FROM ({}) TO ({})").format(*bounds))
        return self._within(value, wanted_)

    def _lock(self) -> None:
        """Take the lock that ATTACH takes, and look again: another run may have made the same ranges meanwhile."""
        self._connection.execute(sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(self._name))
        self._look()

    def _within(self, value: sql.Composable, needed: Iterable[tuple[int, int]]) -> sql.Composable | None:
        """Return the condition that a column of `t` is in some ranges."""
        joined: list[tuple[int, int]] = []
        for lower, upper in sorted(needed):
            if joined and joined[-1][1] == lower:
                joined[-1] = (joined[-1][0], upper)
            else:
                joined.append((lower, upper))
        if len(joined) > _MOST_CONDITIONS:
            joined = [(joined[0][0], joined[-1][1])]
        conditions = []
        for lower, upper in joined:
            ends = [(">=", self._bound(lower)), ("<", self._bound(upper))]
            each = [sql.SQL(f"t.{{}} {sign} {{}}").format(value, end) for sign, end in ends if end is not None]
            conditions.append(sql.SQL(" AND ").join(each) if each else sql.SQL("true"))
        return sql.SQL("({})").format(sql.SQL(" OR ").join(conditions)) if conditions else None

    def _aligned(self, stage: sql.Composable, value: sql.Composable, width: Width) -> sql.Composed:
        """Return the query of the aligned ranges that a column has values in."""
        if isinstance(width, int):
            return sql.SQL(_OF_NUMBERS).format(value=value, width=sql.SQL(f"{width}::bigint"), stage=stage)
        has_zone = self._type.endswith("with time zone")
        start = "date_trunc({}, {}, 'UTC')" if has_zone else "date_trunc({}, {}::timestamp)"
        return sql.SQL(_OF_TIMES).format(
            start=sql.SQL(start).format(sql.Literal(width), value),
            step=sql.SQL(f"interval '1 {width}'"),
            type=sql.SQL(self._type),
            value=value,
            stage=stage,
        )

    def _bound(self, number: float) -> sql.Composable | None:
        """Return a bound as a value; None if the type has no such value."""
        bits = {"smallint": 15, "integer": 31, "bigint": 63}.get(self._type)
        is_value = not bits or -(2**bits) <= number < 2**bits
        return sql.Literal(self._texts[number]) if is_value else None

    def _suffix(self, lower: float) -> str:
        """Return the end of a partition's name, such as `2026_01_01`, `5000` or `m5000`."""
        text = self._texts[lower].removesuffix("+00").removesuffix(" 00:00:00")
        return re.sub(r"[^0-9a-z]+", "_", f"m{text[1:]}" if text[0] == "-" else text.lower())

    def _attach(self, suffix: str, bounds: sql.Composable) -> None:
        part = sql.Identifier(self._schema, free_name(self._connection, self._schema, self._table, suffix))
        self._connection.execute(sql.SQL("CREATE TABLE {} (LIKE {})").format(part, self._name))
        self._connection.execute(sql.SQL("ALTER TABLE {} ATTACH PARTITION {} {}").format(self._name, part, bounds))

    def _make_default(self, why: str) -> None:
        """Make a default partition, under the lock, unless there is one."""
        if self.has_default:
            return
        _LOGGER.warning(
            "%s.%s gets a default partition and no more ranges: it would have %s.", self._schema, self._table, why
        )
        self._attach("default", sql.SQL("DEFAULT"))
        self.has_default = True


def gaps(wanted_: Iterable[tuple[int, int]], there: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield what no range of `there` covers of the wanted ranges. An end does not belong to its range.

    >>> list(gaps([(0, 10), (10, 20)], [(5, 12)]))
    [(0, 5), (12, 20)]
    """
    sorted_ = sorted(there)
    for lower, upper in sorted(wanted_):
        at: float = lower
        for start, end in sorted_:
            if end <= at or start >= upper:
                continue
            if start > at:
                yield at, start
            at = max(at, end)
        if at < upper:
            yield at, upper


def free_name(connection: Connection, schema: str, table: str, suffix: str) -> str:
    """Return a name for a partition that nothing else has."""
    ending = f"_p{suffix}"
    while True:
        name = table.encode()[: _NAME_BYTES - len(ending)].decode(errors="ignore") + ending
        row = connection.execute(
            "select to_regclass(%s) is null", [sql.Identifier(schema, name).as_string(connection)]
        ).fetchone()
        if row and row[0]:
            return name
        ending += "_"
