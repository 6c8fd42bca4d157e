"""Raw tables in partitions: by hash, a fixed number, or by ranges, which are made as keys come.

A range is made before the rows that need it, in the same transaction. A table that is created and then attached takes
a lock on the parent that no reader and no other load waits for; `CREATE TABLE … PARTITION OF` takes one that all wait
for. There is no default partition, whose lock would be needed for each new range. Only a table that would get too many
ranges gets one, and so do infinite times; from then on no more ranges are made.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from singer_postgres.core import widening
from singer_postgres.core.errors import ColumnRetypedError, SettingInvalidError
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse import schema_changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import psycopg

    from singer_postgres.core.wire import Table

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")
SETTING = "raw_partitions"
UNITS = ("day", "week", "month", "year")
# more of them make each query on the table slow to plan
MOST = 1000
# PostgreSQL looks at each of them for each partition, when it plans
_MOST_CONDITIONS = 50
_NAME_BYTES = 63
_INTEGERS = ("smallint", "integer", "bigint")
_TIMES = ("date", "timestamp without time zone", "timestamp with time zone")
# of ranges of a table that has none yet, and for which no setting says it
_DEFAULT_COUNT, _DEFAULT_UNIT = 10_000_000, "month"
_STRATEGIES = {"h": "hash", "l": "list", "r": "range"}
_FIND = """
    select partstrat::text, attname::text, format_type(atttypid, null)
    from pg_catalog.pg_partitioned_table
    left join pg_catalog.pg_attribute on attrelid = partrelid and attnum = partattrs[0] and partnatts = 1
    where partrelid = to_regclass(%s)
"""
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


@dataclass(frozen=True)
class Partitioning:
    """How a raw table is to be partitioned when it is created.

    Attributes:
        column: a column of its key.
        count: the number of partitions by hash.
        width: how many values a range has, or the unit of time that it covers.
    """

    by: Literal["hash", "range"]
    column: str
    count: int = 0
    width: Width = 0

    @property
    def clause(self) -> sql.Composable:
        """The clause of CREATE TABLE."""
        return sql.SQL(f" PARTITION BY {self.by.upper()} ({{}})").format(sql.Identifier(self.column))


@dataclass(frozen=True)
class Partitions:
    """How a table is partitioned.

    Attributes:
        strategy: of pg_partitioned_table: h, l or r.
        column: None if the partitions have more than one, or an expression.
        type: of the column, without modifiers.
        width: of new ranges; None for that of the widest range.
    """

    strategy: str
    column: str | None
    type: str | None
    width: Width | None = None

    def __str__(self) -> str:
        """Say it in words."""
        return f"partitioned by {_STRATEGIES[self.strategy]} of {self.column or 'something else than one column'}"

    def is_as(self, setting: Mapping[str, Any], key: Sequence[str]) -> bool:
        """Whether a stream's entry in `raw_partitions` could have made them.

        Args:
            key: of the stream.
        """
        column = setting.get("column") or next(iter(key), None)
        if (setting["by"], column) != (_STRATEGIES[self.strategy], self.column):
            return False
        return setting["by"] == "hash" or _fits(self.type or "", setting.get("width"))


def wanted(setting: Mapping[str, Any] | None, table: Table, types: Mapping[str, str]) -> Partitioning | None:
    """Return how a stream's table is to be partitioned; None if it is to be a plain table.

    Args:
        setting: the stream's entry in `raw_partitions`.
        types: the types of the table's columns in the warehouse.

    Raises:
        SettingInvalidError: the table can't be partitioned like that.
    """
    if setting is None:
        return None
    what = f"{SETTING} of {table.schema}.{table.name}"
    if not table.key:
        raise SettingInvalidError(f"{what}: a table without a key can't be partitioned; take the stream out of it.")
    column = setting.get("column") or table.key[0]
    if column not in table.key:
        msg = f"{what}: `column` is {column}, and must be a column of the key: {' or '.join(table.key)}."
        raise SettingInvalidError(msg)
    if setting["by"] == "hash":
        return Partitioning("hash", column, count=setting.get("count", 16))
    type_, width = _bare(types[column]), setting.get("width")
    if type_ not in {*_INTEGERS, *_TIMES}:
        raise SettingInvalidError(f"{what}: {column} is {type_}, which has no ranges here; partition it by hash.")
    if not _fits(type_, width):
        form = "a whole number" if type_ in _INTEGERS else ", ".join(UNITS)
        raise SettingInvalidError(f"{what}: `width` is {width}, and for {column}, which is {type_}, must be {form}.")
    assert width is not None
    return Partitioning("range", column, width=width)


def _fits(type_: str, width: Width | None) -> bool:
    return isinstance(width, int) if type_ in _INTEGERS else type_ in _TIMES and width in UNITS


def find(
    connection: Connection,
    schema: str,
    table: str,
    *,
    setting: Mapping[str, Any] | None = None,
    key: Sequence[str] = (),
) -> Partitions | None:
    """Return how a table is partitioned; None if it is not.

    Args:
        setting: the stream's entry in `raw_partitions`. It says how wide new ranges are, unless it is for a table that
            would be partitioned otherwise: this one stays as it is.
        key: of the stream.
    """
    row = connection.execute(_FIND, [sql.Identifier(schema, table).as_string(connection)]).fetchone()
    found = Partitions(*row) if row else None
    if found and setting and found.is_as(setting, key):
        return replace(found, width=setting.get("width"))
    return found


def refuse_to_widen(
    partitions: Partitions, schema: str, table: Table, wanted_: Mapping[str, str], has: Mapping[str, str]
) -> None:
    """Refuse another type of the column by which a table is partitioned: PostgreSQL can't change it.

    Raises:
        ColumnRetypedError: the column must be widened.
    """
    column = partitions.column
    here, there = (types.get(column) if column else None for types in (has, wanted_))
    if here and there and here != there and widening.widens(here, there):
        msg = (
            f"{schema}.{table.name}.{column} is {here}, and the source's column is {there} now: it "
            "can't be widened, because the table is partitioned by it. "
            f"{schema_changes.keep_apart(schema, table)}"
        )
        raise ColumnRetypedError(msg)


def create_hash(connection: Connection, schema: str, table: str, count: int) -> None:
    """Create the partitions of a new table by hash."""
    for number in range(count):
        connection.execute(
            sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES WITH (MODULUS {}, REMAINDER {})").format(
                sql.Identifier(schema, _free_name(connection, schema, table, str(number))),
                sql.Identifier(schema, table),
                sql.Literal(count),
                sql.Literal(number),
            )
        )


def make_room(
    connection: Connection, schema: str, table: str, stage: sql.Composable, *, partitions: Partitions | None
) -> sql.Composable | None:
    """Make the ranges that rows of a stage need, in the caller's transaction.

    Returns:
        A condition that all rows `t` of the table with a key of the stage meet: with it, PostgreSQL reads only the
        partitions that can have them. None if there is no such condition.

    Args:
        stage: what the rows are selected from.
        partitions: how the table is partitioned; if not by ranges, nothing is to be done.
    """
    if partitions is None or partitions.strategy != "r" or partitions.column is None or partitions.type is None:
        return None
    if partitions.type not in {*_INTEGERS, *_TIMES}:
        return None
    made = _Ranges(connection, schema, table, partitions.type)
    return None if made.has_default else made.make(stage, partitions.column, partitions.width or made.widest)


def ranges(
    connection: Connection, schema: str, table: str, partitions: Partitions
) -> list[tuple[str | None, str | None]]:
    """Return the bounds of a table's ranges, in their order; None for one without an end, [] if it has no ranges."""
    if partitions.strategy != "r" or partitions.type not in {*_INTEGERS, *_TIMES}:
        return []
    return _Ranges(connection, schema, table, partitions.type).bounds


class _Ranges:
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
        if self._type in _INTEGERS:
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
            return _DEFAULT_COUNT if self._type in _INTEGERS else _DEFAULT_UNIT
        if self._type in _INTEGERS:
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
        part = sql.Identifier(self._schema, _free_name(self._connection, self._schema, self._table, suffix))
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


def _bare(type_: str) -> str:
    return re.sub(r"\(\d+\)", "", type_)


def _free_name(connection: Connection, schema: str, table: str, suffix: str) -> str:
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
