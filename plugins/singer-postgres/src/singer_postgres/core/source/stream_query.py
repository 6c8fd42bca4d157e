"""The SELECT of a stream: columns, masks, conditions and bounds, composed from identifiers and literals.

Only the user's own where clause is inserted as it is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core import widening
from singer_postgres.core.errors import (
    ColumnMissingError,
    PermissionDeniedError,
    SettingInvalidError,
    TypeUnsupportedError,
)
from singer_postgres.core.source.masks import AS_TEXT
from singer_postgres.core.sql_compat import literal, quoted, sql
from singer_postgres.core.wire import WireColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from singer_postgres.core.source.relations import Column, Leaf, Relation
    from singer_postgres.core.wire import BlockRange

REDACTED = "[redacted]"
# the mask key is in custom settings, so that no statement that other sessions can see contains it
INNER, OUTER = "tidemark.mask_inner", "tidemark.mask_outer"


@dataclass(frozen=True)
class ReadColumns:
    """What an earlier run read from a table. The stream's state keeps it.

    Attributes:
        table_oid: the table's oid, which differs for another table of the same name; 0 for a view or foreign table.
        max_attnum: the table's largest attnum.
        columns: name, attnum, mask and type of each column that was read; no type in states of earlier releases.
        where: the conditions on the rows.
        seen: a transaction id of the source; the run saw all older transactions. None in states of earlier releases.
        published: the transaction that published the table; None if the stream is not LOG_BASED.
    """

    table_oid: int
    max_attnum: int
    columns: tuple[tuple[str, int, str | None, str | None], ...]
    where: tuple[str, ...] = ()
    seen: str | None = None
    published: str | None = None

    def to_json(self) -> list[Any]:
        """Return the value for the state. It is a list, because states merge objects key by key but replace lists."""
        columns = [list(column) for column in self.columns]
        published = [self.published] if self.published else []
        return [self.table_oid, self.max_attnum, columns, list(self.where), self.seen, *published]

    @classmethod
    def from_json(cls, value: Any) -> ReadColumns:
        """Parse a value of `to_json`."""
        table_oid, max_attnum, columns, where, *more = value
        # earlier releases wrote four members, and no types
        seen, published = (*more, None, None)[:2]
        read = tuple((name, attnum, mask, *(type_ or [None])) for name, attnum, mask, *type_ in columns)
        return cls(table_oid, max_attnum, read, tuple(where), None if seen is None else str(int(seen)), published)


@dataclass(frozen=True)
class StreamQuery:
    """The part of a relation that a run reads.

    Attributes:
        columns: the columns to read, in the table's order.
        masks: each masked column's mask, one of `masks.MASKS`.
        where: the user's conditions, as SQL.
    """

    relation: Relation
    columns: tuple[Column, ...]
    masks: Mapping[str, str]
    where: Sequence[str] = ()

    def wire_columns(self) -> tuple[WireColumn, ...]:
        """Return the columns as the warehouse is to have them."""
        return tuple(
            WireColumn(column.name, "text", attnum=column.attnum)
            if self.masks.get(column.name) in AS_TEXT or column.target_type.type is None
            else WireColumn(
                column.name,
                column.target_type.type,
                column.target_type.extension,
                column.attnum,
                self._missing_value(column),
            )
            for column in self.columns
        )

    def _missing_value(self, column: Column) -> str | None:
        """Return the value that old rows have in a column; None if the column is masked."""
        return None if column.name in self.masks else column.missing_value

    def read_columns(self) -> ReadColumns:
        """Return what to keep in the state. The next run compares it, to find out whether old rows lack something."""
        own_rows = self.relation.kind in "rp"
        columns = tuple(
            (column.name, column.attnum, self.masks.get(column.name), wire.type)
            for column, wire in zip(self.columns, self.wire_columns(), strict=True)
        )
        table_oid = self.relation.oid if own_rows else 0
        return ReadColumns(table_oid, self.relation.max_attnum, columns, tuple(self.where), self.relation.seen)

    def was_read(self, column: Column, before: ReadColumns) -> bool:
        """Return whether a column was read before: by attnum, or by name for views, whose attnums change."""
        return any(
            column.attnum == attnum if before.table_oid else column.name == name for name, attnum, *_ in before.columns
        )

    def unread(self, before: ReadColumns) -> str | None:
        """Return why rows that an earlier run read must be read again, as far as the catalogs tell; None if not."""
        now = self.read_columns()
        if before.table_oid != now.table_oid:
            return "it was dropped and created again"
        if before.where != now.where:
            return "its where clause, or start_date, was changed"
        read = {attnum if before.table_oid else name: (mask, type_) for name, attnum, mask, type_ in before.columns}
        for column, (_, _, mask, type_) in zip(self.columns, now.columns, strict=True):
            if self.was_read(column, before):
                old_mask, old_type = read[column.attnum if before.table_oid else column.name]
                if mask != old_mask:
                    return f"the mask of {column.name} was changed"
                if old_type and type_ and not (widening.widens(old_type, type_) or widening.holds(old_type, type_)):
                    return f"the type of {column.name} became {type_}"
            elif before.table_oid and column.attnum <= before.max_attnum:
                return f"{column.name} was not selected before"
        return None

    def contradicts(self, column: Column, *, fills: bool) -> sql.Composable:
        """Return the condition on rows whose value in a column differs from what the warehouse gives to old rows.

        Args:
            fills: the warehouse gives the column's missing value; otherwise it gives null.
        """
        value = self.expression(column)
        # unlike IS NULL, num_nonnulls counts a composite of nulls as a value
        if not fills or (was := self._missing_value(column)) is None:
            return sql.SQL("num_nonnulls({}) > 0").format(value)
        # with the type's own output, as it travels: a cast to text trims character(5)
        return sql.SQL("(num_nulls({0}) > 0 OR format('%s', {0}) <> {1})").format(value, literal(was))

    def exists(self, condition: sql.Composable, *, table: tuple[str, str] | None = None) -> sql.Composed:
        """Return the query whether any row of the stream meets `condition`.

        Args:
            table: look only in this partition of the relation.
        """
        conditions = [*(sql.SQL(f"({clause}\n)") for clause in self.where), condition]
        return sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})").format(
            sql.Identifier(*(table or (self.relation.schema, self.relation.name))), sql.SQL(" AND ").join(conditions)
        )

    @property
    def binary(self) -> bool:
        """Whether all columns can travel in their binary form."""
        return all(column.target_type.binary or self.masks.get(column.name) in AS_TEXT for column in self.columns)

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
            leaf: the table of the relation to read; None for the whole relation.
            blocks: a range of the leaf's blocks.
            bound: a further condition.
            more: further expressions to select.
        """
        of_range = [] if blocks is None else _between(blocks)
        conditions = [_clause(clause, of_range=bool(of_range)) for clause in self.where]
        if bound is not None:
            conditions.append(_without_index(bound) if of_range else bound)
        conditions.extend(of_range)
        query = sql.SQL("SELECT {columns} FROM {source}").format(
            columns=sql.SQL(", ").join([*map(self._named, self.columns), *more]), source=self.source(leaf)
        )
        return query + sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else query

    def source(self, leaf: Leaf | None = None) -> sql.Composed:
        """Return the FROM item: the relation, or one table of it."""
        of = leaf or self.relation
        return sql.SQL("ONLY {}" if leaf else "{}").format(sql.Identifier(of.schema, of.name))

    def _named(self, column: Column) -> sql.Composable:
        expression = self.expression(column)
        if column.name not in self.masks:
            return expression
        return sql.SQL("{} AS {}").format(expression, sql.Identifier(column.name))

    def expression(self, column: Column) -> sql.Composable:
        """Return the expression to read for a column: its value, or its mask."""
        name = sql.Identifier(column.name)
        match self.masks.get(column.name):
            case "null":
                return sql.SQL("NULL")
            case "redact":
                return sql.SQL("CASE WHEN {} IS NOT NULL THEN {} END").format(name, sql.Literal(REDACTED))
            case "sha256":
                # HMAC (RFC 2104) with core functions, because pgcrypto is not available everywhere
                return sql.SQL(
                    "encode(sha256(current_setting({outer})::bytea || sha256(current_setting({inner})::bytea "
                    "|| convert_to({name}::text, 'UTF8'))), 'hex')"
                ).format(outer=sql.Literal(OUTER), inner=sql.Literal(INNER), name=name)
            case _:
                return name


def stream_query(
    relation: Relation, names: Iterable[str], *, key: Sequence[str], masks: Mapping[str, str], where: Sequence[str]
) -> StreamQuery:
    """Return the selection of the columns `names`, plus the key's columns.

    Raises:
        SingerPostgresError: a column is missing, its type can't be transferred, or its mask can't be used.
    """
    wanted = {*names, *key}
    has = {column.name: column for column in relation.columns}
    if missing := sorted(wanted - has.keys()):
        msg = f"{relation} has no column {', '.join(missing)}; run discovery again, or correct `select`."
        raise ColumnMissingError(msg)
    if unknown := sorted(masks.keys() - has.keys()):
        msg = f"masks of {relation} name {', '.join(unknown)}, and it has no such column; correct `masks`."
        raise SettingInvalidError(msg)
    columns = tuple(column for column in relation.columns if column.name in wanted)
    refuse_unreadable(relation, columns)
    for column in columns:
        mask = masks.get(column.name)
        if mask in {"null", "redact"} and column.name in key:
            msg = f"{relation}.{column.name} is part of the key, and mask {mask!r} would make rows indistinguishable; "
            raise SettingInvalidError(msg + "mask it with sha256, or not at all.")
        if column.target_type.type is None and mask is None:
            msg = (
                f"{relation}.{column.name} is of type {column.declared}, which COPY can write and nothing can read; "
                f"deselect it: `meltano select --exclude tap-postgres {relation.schema}-{relation.name} {column.name}`."
            )
            raise TypeUnsupportedError(msg)
    return StreamQuery(relation, columns, masks, where)


def refuse_unreadable(relation: Relation, columns: Sequence[Column]) -> None:
    """Refuse columns that this role may not read.

    Raises:
        SingerPostgresError: a column can't be read. The message has the GRANT statement.
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
        msg = f"permission denied for {', '.join(unreadable)} of {relation}: {grant} Or deselect these columns."
    raise PermissionDeniedError(msg)


def _clause(clause: str, *, of_range: bool) -> sql.Composable:
    condition = sql.SQL(f"({clause}\n)")
    # a subquery may be a join, which this would forbid
    return condition if not of_range or "select" in clause.lower() else _without_index(condition)


def _without_index(condition: sql.Composable) -> sql.Composable:
    """Return a condition that no index is used for.

    In the query of a range of blocks, an index would find the rows of all ranges, once for each range. PostgreSQL would
    use one where it expects few rows: its statistics don't know of what changed since they were gathered.
    """
    return sql.SQL("({}) IS TRUE").format(condition)


def _between(blocks: BlockRange) -> list[sql.Composable]:
    _, first, after = blocks
    bounds: list[sql.Composable] = [sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({first},0)"))] if first else []
    if after is not None:
        bounds.append(sql.SQL("ctid < {}::tid").format(sql.Literal(f"({after},0)")))
    return bounds


def mask_key_statement(secret: str) -> sql.Composed:
    """Return the SQL that gives a session the key of sha256 masks."""
    # hashing makes a key of one block from a secret of any length
    key = hashlib.sha256(secret.encode()).digest().ljust(64, b"\0")
    pads = {INNER: bytes(byte ^ 0x36 for byte in key), OUTER: bytes(byte ^ 0x5C for byte in key)}
    return sql.SQL("SELECT ") + sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, false)").format(sql.Literal(name), literal("\\x" + pad.hex()))
        for name, pad in pads.items()
    )
