"""The SELECT of a stream: its columns, masks, conditions and bounds, composed of identifiers and literals.

The one piece of SQL that is taken as it comes is the user's own where clause.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core import widening
from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.sql_compat import literal, quoted, sql
from singer_postgres.core.wire import WireColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from singer_postgres.core.source.relations import Column, Leaf, Relation
    from singer_postgres.core.wire import BlockRange

MASKS = ("sha256", "null", "redact")
_REDACTED = "[redacted]"
# settings of our own hold the key, so that it is in no statement that others can see running
INNER, OUTER = "tidemark.mask_inner", "tidemark.mask_outer"


@dataclass(frozen=True)
class ReadColumns:
    """What of a table was read, as the stream's state keeps it.

    Attributes:
        relation: tells the table from another that had its name before; 0 of what has no rows of its own.
        width: the largest number of a column.
        columns: name, number, mask and type of those that were read; no type if that was not kept.
        where: the conditions that rows had to meet.
        seen: a transaction id of the source: all that is older was seen. None if that was not kept.
    """

    relation: int
    width: int
    columns: tuple[tuple[str, int, str | None, str | None], ...]
    where: tuple[str, ...] = ()
    seen: str | None = None

    def to_json(self) -> list[Any]:
        """Return it as states keep it: as a list, which is replaced where objects would be merged."""
        return [self.relation, self.width, [list(column) for column in self.columns], list(self.where), self.seen]

    @classmethod
    def from_json(cls, value: Any) -> ReadColumns:
        """Read what `to_json` gave."""
        relation, width, columns, where, *more = value
        # releases before this wrote four, and no types
        (seen,) = more or (None,)
        read = tuple((name, number, mask, *(type_ or [None])) for name, number, mask, *type_ in columns)
        return cls(relation, width, read, tuple(where), None if seen is None else str(int(seen)))


@dataclass(frozen=True)
class Selection:
    """What of a relation is read.

    Attributes:
        columns: those that are read, in the table's order.
        masks: by column; see MASKS.
        where: conditions of the user's, as SQL.
    """

    relation: Relation
    columns: tuple[Column, ...]
    masks: Mapping[str, str]
    where: Sequence[str] = ()

    def wire_columns(self) -> tuple[WireColumn, ...]:
        """Return the columns as the warehouse is to have them."""
        return tuple(
            WireColumn(column.name, "text", attnum=column.attnum)
            if self.masks.get(column.name) in {"sha256", "redact"} or column.target_type.type is None
            else WireColumn(
                column.name, column.target_type.type, column.target_type.extension, column.attnum, self._past(column)
            )
            for column in self.columns
        )

    def _past(self, column: Column) -> str | None:
        """Return what old rows hold in a column, unless that is not to be known."""
        return None if column.name in self.masks else column.missing_value

    def read_columns(self) -> ReadColumns:
        """Return what would be different if old rows lacked something."""
        own_rows = self.relation.kind in "rp"
        columns = tuple(
            (column.name, column.attnum, self.masks.get(column.name), wire.type)
            for column, wire in zip(self.columns, self.wire_columns(), strict=True)
        )
        relation = self.relation.oid if own_rows else 0
        return ReadColumns(relation, self.relation.max_attnum, columns, tuple(self.where), self.relation.seen)

    def was_read(self, column: Column, before: ReadColumns) -> bool:
        """Return whether a column was read before; by its name where numbers change with a view's definition."""
        return any(
            column.attnum == number if before.relation else column.name == name for name, number, *_ in before.columns
        )

    def unread(self, before: ReadColumns) -> str | None:
        """Return why rows that were read in another shape must be read again, as far as the catalogs tell."""
        now = self.read_columns()
        if before.relation != now.relation:
            return "it was dropped and made again"
        if before.where != now.where:
            return "its where clause, or start_date, was changed"
        read = {number if before.relation else name: (mask, type_) for name, number, mask, type_ in before.columns}
        for column, (_, _, mask, type_) in zip(self.columns, now.columns, strict=True):
            if self.was_read(column, before):
                old_mask, old_type = read[column.attnum if before.relation else column.name]
                if mask != old_mask:
                    return f"the mask of {column.name} was changed"
                if old_type and type_ and not (widening.widens(old_type, type_) or widening.holds(old_type, type_)):
                    return f"{column.name} was made {type_}"
            elif before.relation and column.attnum <= before.width:
                return f"{column.name} was not selected before"
        return None

    def speaks_against(self, column: Column, *, past: bool) -> sql.Composable:
        """Return the condition of rows that hold another value in a column than the warehouse gives to old rows.

        Args:
            past: the warehouse is told of a value; else it gives null.
        """
        value = self.expression(column)
        # unlike IS NULL, this takes a composite of nulls for the value that it is
        if not past or (was := self._past(column)) is None:
            return sql.SQL("num_nonnulls({}) > 0").format(value)
        # by the type's own output, as it travels: a cast to text trims character(5)
        return sql.SQL("(num_nulls({0}) > 0 OR format('%s', {0}) <> {1})").format(value, literal(was))

    def exists(self, condition: sql.Composable, *, table: tuple[str, str] | None = None) -> sql.Composed:
        """Return the query that tells whether a row meets `condition`, of those that the stream may have.

        Args:
            table: a part of the relation to look in.
        """
        conditions = [*(sql.SQL(f"({clause}\n)") for clause in self.where), condition]
        return sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(
            sql.Identifier(*(table or (self.relation.schema, self.relation.name))), sql.SQL(" AND ").join(conditions)
        )

    @property
    def binary(self) -> bool:
        """Whether all columns can travel in their binary form."""
        hashed = {"sha256", "redact"}
        return all(column.target_type.binary or self.masks.get(column.name) in hashed for column in self.columns)

    def query(
        self,
        *,
        leaf: Leaf | None = None,
        blocks: BlockRange | None = None,
        bound: sql.Composable | None = None,
        more: Sequence[sql.Composable] = (),
    ) -> sql.Composed:
        """Return the SELECT.

        Args:
            leaf: the part of the relation to read; None for the relation as a whole.
            blocks: of the leaf.
            bound: a further condition.
            more: further expressions.
        """
        conditions: list[sql.Composable] = [sql.SQL(f"({clause}\n)") for clause in self.where]
        if bound is not None:
            conditions.append(bound)
        if blocks is not None:
            conditions.extend(_between(blocks))
        query = sql.SQL("SELECT {columns} FROM {source}").format(
            columns=sql.SQL(", ").join([*map(self._named, self.columns), *more]), source=self.source(leaf)
        )
        return query + sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else query

    def source(self, leaf: Leaf | None = None) -> sql.Composed:
        """Return what is read: the relation, or one table of it."""
        of = leaf or self.relation
        return sql.SQL("ONLY {}" if leaf else "{}").format(sql.Identifier(of.schema, of.name))

    def _named(self, column: Column) -> sql.Composable:
        expression = self.expression(column)
        if column.name not in self.masks:
            return expression
        return sql.SQL("{} AS {}").format(expression, sql.Identifier(column.name))

    def expression(self, column: Column) -> sql.Composable:
        """Return what is read of a column: its value, or what its mask makes of it."""
        name = sql.Identifier(column.name)
        match self.masks.get(column.name):
            case "null":
                return sql.SQL("NULL")
            case "redact":
                return sql.SQL("CASE WHEN {} IS NOT NULL THEN {} END").format(name, sql.Literal(_REDACTED))
            case "sha256":
                # HMAC of RFC 2104, by core functions: pgcrypto is not to be had everywhere
                return sql.SQL(
                    "encode(sha256(current_setting({outer})::bytea || sha256(current_setting({inner})::bytea "
                    "|| convert_to({name}::text, 'UTF8'))), 'hex')"
                ).format(outer=sql.Literal(OUTER), inner=sql.Literal(INNER), name=name)
            case _:
                return name


def select(
    relation: Relation, names: Iterable[str], *, key: Sequence[str], masks: Mapping[str, str], where: Sequence[str]
) -> Selection:
    """Return the selection of the columns `names`, the key's always among them.

    Raises:
        SingerPostgresError: a column is missing, has a type that can't be carried, or can't be masked so.
    """
    wanted = {*names, *key}
    has = {column.name: column for column in relation.columns}
    if missing := sorted(wanted - has.keys()):
        msg = f"{relation} has no column {', '.join(missing)}; run discovery again, or correct `select`."
        raise SingerPostgresError(msg)
    if unknown := sorted(masks.keys() - has.keys()):
        msg = f"masks of {relation} name {', '.join(unknown)}, and it has no such column; correct `masks`."
        raise SingerPostgresError(msg)
    columns = tuple(column for column in relation.columns if column.name in wanted)
    refuse_unreadable(relation, columns)
    for column in columns:
        mask = masks.get(column.name)
        if mask is not None and mask not in MASKS:
            msg = f"mask {mask!r} of {relation}.{column.name} is unknown; known are {', '.join(MASKS)}."
            raise SingerPostgresError(msg)
        if mask in {"null", "redact"} and column.name in key:
            msg = f"{relation}.{column.name} is part of the key, and with mask {mask!r} rows could not be told apart; "
            raise SingerPostgresError(msg + "mask it with sha256, or not at all.")
        if column.target_type.type is None and mask is None:
            msg = (
                f"{relation}.{column.name} is of type {column.declared}, which COPY can write and nothing can read; "
                f"deselect it: `meltano select --exclude tap-postgres {relation.schema}-{relation.name} {column.name}`."
            )
            raise SingerPostgresError(msg)
    return Selection(relation, columns, masks, where)


def refuse_unreadable(relation: Relation, columns: Sequence[Column]) -> None:
    """Raise if this role has no grant to read one of `columns`.

    Raises:
        SingerPostgresError: it names the statement that gives it.
    """
    unreadable = [column.name for column in columns if not column.readable]
    if not unreadable:
        return
    names = ", ".join(map(quoted, unreadable))
    if not any(column.readable for column in relation.columns):
        grant = f"GRANT SELECT ON {quoted(relation.schema, relation.name)} TO …;"
        msg = f"permission denied for {relation}: this role may read no column of it. {grant}"
    else:
        grant = f"GRANT SELECT ({names}) ON {quoted(relation.schema, relation.name)} TO …;"
        msg = (
            f"permission denied for {', '.join(unreadable)} of {relation}: {grant} Or deselect what is not to be read."
        )
    raise SingerPostgresError(msg)


def _between(blocks: BlockRange) -> list[sql.Composable]:
    _, first, after = blocks
    bounds: list[sql.Composable] = [sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({first},0)"))] if first else []
    if after is not None:
        bounds.append(sql.SQL("ctid < {}::tid").format(sql.Literal(f"({after},0)")))
    return bounds


def mask_key_statement(secret: str) -> sql.Composed:
    """Return the SQL that gives a session the key that sha256 masks are made with."""
    # any length of secret makes a key of one block
    key = hashlib.sha256(secret.encode()).digest().ljust(64, b"\0")
    pads = {INNER: bytes(byte ^ 0x36 for byte in key), OUTER: bytes(byte ^ 0x5C for byte in key)}
    return sql.SQL("SELECT ") + sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, false)").format(sql.Literal(name), literal("\\x" + pad.hex()))
        for name, pad in pads.items()
    )
