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
from singer_postgres.core.warehouse.partition_ranges import INTEGERS, TIMES, Ranges, Width, free_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from singer_postgres.core.wire import Table

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")
SETTING = "raw_partitions"
UNITS = ("day", "week", "month", "year")
# how many partitions by hash a new table gets, if the setting does not say it
_COUNT = 16
_STRATEGIES = {"h": "hash", "l": "list", "r": "range"}
_FIND = """
    select partstrat::text, attname::text, format_type(atttypid, null),
        (select count(*) from pg_catalog.pg_inherits where inhparent = pg_partitioned_table.partrelid)
    from pg_catalog.pg_partitioned_table
    left join pg_catalog.pg_attribute on attrelid = partrelid and attnum = partattrs[0] and partnatts = 1
    where partrelid = to_regclass(%s)
"""


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
        count: the number of partitions.
        width: of new ranges; None for that of the widest range.
    """

    strategy: str
    column: str | None
    type: str | None
    count: int
    width: Width | None = None

    def __str__(self) -> str:
        """Say it in words."""
        said = f"partitioned by {_STRATEGIES[self.strategy]} of {self.column or 'something else than one column'}"
        return f"{said}, in {self.count} partitions" if self.strategy == "h" else said

    def is_as(self, setting: Mapping[str, Any], key: Sequence[str]) -> bool:
        """Whether a stream's entry in `raw_partitions` could have made them.

        Args:
            key: of the stream.
        """
        column = setting.get("column") or next(iter(key), None)
        if (setting["by"], column) != (_STRATEGIES[self.strategy], self.column):
            return False
        if setting["by"] == "hash":
            return "count" not in setting or setting["count"] == self.count
        return _fits(self.type or "", setting.get("width"))


def wanted(
    setting: Mapping[str, Any] | None, table: str, key: Sequence[str], types: Mapping[str, str]
) -> Partitioning | None:
    """Return how a stream's table is to be partitioned; None if it is to be a plain table.

    Args:
        setting: the stream's entry in `raw_partitions`.
        table: SCHEMA.TABLE in the source, for messages.
        key: of the stream.
        types: the types of the table's columns in the warehouse.

    Raises:
        SettingInvalidError: the table can't be partitioned like that.
    """
    if setting is None:
        return None
    what = f"{SETTING} of {table}"
    if not key:
        raise SettingInvalidError(f"{what}: a table without a key can't be partitioned; take the stream out of it.")
    column = setting.get("column") or key[0]
    if column not in key:
        msg = f"{what}: `column` is {column}, and must be a column of the key: {' or '.join(key)}."
        raise SettingInvalidError(msg)
    if setting["by"] == "hash":
        return Partitioning("hash", column, count=setting.get("count", _COUNT))
    type_, width = _bare(types[column]), setting.get("width")
    if type_ not in {*INTEGERS, *TIMES}:
        raise SettingInvalidError(f"{what}: {column} is {type_}, which has no ranges here; partition it by hash.")
    if not _fits(type_, width):
        form = "a whole number" if type_ in INTEGERS else ", ".join(UNITS)
        has = "is missing" if width is None else f"is {width}"
        raise SettingInvalidError(f"{what}: `width` {has}, and for {column}, which is {type_}, must be {form}.")
    assert width is not None
    return Partitioning("range", column, width=width)


def _fits(type_: str, width: Width | None) -> bool:
    return isinstance(width, int) if type_ in INTEGERS else type_ in TIMES and width in UNITS


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
                sql.Identifier(schema, free_name(connection, schema, table, str(number))),
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
    if partitions.type not in {*INTEGERS, *TIMES}:
        return None
    made = Ranges(connection, schema, table, partitions.type)
    return None if made.has_default else made.make(stage, partitions.column, partitions.width or made.widest)


def ranges(
    connection: Connection, schema: str, table: str, partitions: Partitions
) -> list[tuple[str | None, str | None]]:
    """Return the bounds of a table's ranges, in their order; None for one without an end, [] if it has no ranges."""
    if partitions.strategy != "r" or partitions.type not in {*INTEGERS, *TIMES}:
        return []
    return Ranges(connection, schema, table, partitions.type).bounds


def _bare(type_: str) -> str:
    return re.sub(r"\(\d+\)", "", type_)
