"""The queries that return a stream's rows as keys and hashes, in the same form for both databases.

The hash is taken from a row's text. Under the session settings of the wire format, both servers write the same text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from singer_postgres.core.source.relations import Column
    from singer_postgres.core.source.stream_query import StreamQuery

Key = tuple[str, ...]
_SEPARATOR = "\x1f"
# so many keys fit into one statement
_AT_ONCE = 5000


def pieces(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """Yield keys in pieces, each for one statement."""
    for first in range(0, len(keys), _AT_ONCE):
        yield keys[first : first + _AT_ONCE]


@dataclass(frozen=True)
class ComparedStream:
    """One stream in both databases.

    Attributes:
        selection: the part of the source's table that the tap reads.
        key: the columns that identify a row; empty if there is no key.
        schema: the warehouse's schema.
        raw_types: the types of the warehouse's columns.
        pending: the condition on source rows that the next run will read.
        since: the conditions of `--since`, and of a range, on the source's rows and on the warehouse's.
        partition_column: the column of the key by which the warehouse's table is partitioned.
    """

    selection: StreamQuery
    key: tuple[str, ...]
    schema: str
    raw_types: dict[str, str]
    pending: sql.Composable | None = None
    since: tuple[sql.Composable, sql.Composable] | None = None
    partition_column: str | None = None

    @property
    def name(self) -> sql.Identifier:
        """The warehouse's table."""
        return sql.Identifier(self.schema, self.selection.relation.name)

    @property
    def _key_columns(self) -> list[Column]:
        columns = {column.name: column for column in self.selection.columns}
        return [columns[name] for name in self.key]

    def source_rows(self, keys: Sequence[Key] | None = None) -> sql.Composed:
        """Return the query of the source's rows: key columns `k0`, `k1`, …, hash `h`, and `p` for pending ones.

        Args:
            keys: the keys of the wanted rows; None for all rows.
        """
        condition = self._source_keys(keys) if keys is not None else self.since and self.since[0]
        pending = sql.SQL("coalesce({}, true) AS _tidemark_pending").format(self.pending or sql.SQL("false"))
        inner = self.selection.query(bound=condition or None, more=[pending])
        return self._hashed(sql.SQL("({})").format(inner), sql.SQL("_tidemark_pending AS p"))

    def rows_of(self, keys: Sequence[Key]) -> sql.Composable:
        """Return the query of some of the source's rows, as the tap reads them."""
        query: sql.Composed = self.selection.query(bound=self._source_keys(keys))
        return query

    def _source_keys(self, keys: Sequence[Key]) -> sql.Composable:
        return _among([(self.selection.expression(column), self._type(column)) for column in self._key_columns], keys)

    def raw_keys(self, keys: Sequence[Key]) -> sql.Composable:
        """Return the condition that a row of the warehouse has one of `keys`."""
        condition = _among([(sql.Identifier(name), self.raw_types[name]) for name in self.key], keys)
        if self.partition_column not in self.key:
            return condition
        # of a list of values, and not of a join, PostgreSQL knows the partitions that can have them
        number = self.key.index(self.partition_column)
        values = sql.Literal(sorted({key[number] for key in keys}))
        return sql.SQL("{} AND {} = ANY ({}::{}[])").format(
            condition, sql.Identifier(self.key[number]), values, sql.SQL(self.raw_types[self.key[number]])
        )

    def raw_rows(self, keys: Sequence[Key] | None = None) -> sql.Composed:
        """Return the same query of the warehouse's rows. Instead of `p` it has `e`, the instant of extraction."""
        conditions: list[sql.Composable] = [sql.SQL("_sdc_deleted_at IS NULL")]
        if keys is not None:
            conditions.append(self.raw_keys(keys))
        elif self.since:
            conditions.append(self.since[1])
        inner = sql.SQL("(SELECT * FROM {} WHERE {})").format(self.name, sql.SQL(" AND ").join(conditions))
        return self._hashed(inner, sql.SQL("_sdc_extracted_at AS e"))

    def buckets(self, rows: sql.Composable, count: int) -> sql.Composed:
        """Return the query of one database's buckets: number, rows and the sum of their hashes."""
        # without a key, a row can occur twice, and xor would cancel the two out
        total = sql.SQL("bit_xor(h)" if self.key else "sum(h::numeric)")
        return sql.SQL("SELECT {bucket} AS b, count(*), {total} FROM ({rows}) r GROUP BY 1").format(
            bucket=self._bucket(count), total=total, rows=rows
        )

    def narrowed(self, rows: sql.Composable, count: int, buckets: Sequence[int]) -> sql.Composed:
        """Return the query of one database's rows in some buckets, in an order that both servers and Python share."""
        if not self.key:
            return sql.SQL("SELECT h, count(*) FROM ({}) r WHERE {} = ANY({}) GROUP BY h ORDER BY h").format(
                rows, self._bucket(count), sql.Literal(list(buckets))
            )
        keys = [sql.SQL('{} COLLATE "C"').format(name) for name in self._key_names]
        return sql.SQL("SELECT * FROM ({}) r WHERE {} = ANY({}) ORDER BY {}").format(
            rows, self._bucket(count), sql.Literal(list(buckets)), sql.SQL(", ").join(keys)
        )

    @property
    def _key_names(self) -> list[sql.Identifier]:
        return [sql.Identifier(f"k{number}") for number in range(len(self.key))]

    def _bucket(self, count: int) -> sql.Composable:
        if not self.key:
            return sql.SQL("(h & {})::int").format(sql.Literal(count - 1))
        parts = sql.SQL(", ").join([sql.Literal(_SEPARATOR), *self._key_names])
        text = sql.SQL("concat_ws({})").format(parts) if len(self.key) > 1 else self._key_names[0]
        return sql.SQL("(hashtextextended({}, 1) & {})::int").format(text, sql.Literal(count - 1))

    def _hashed(self, rows: sql.Composable, also: sql.Composable) -> sql.Composed:
        fields = sql.SQL(", ").join(self._text(column) for column in self.selection.columns)
        keys = [
            sql.SQL("{}::text AS {}").format(self._key_text(column), name)
            for column, name in zip(self._key_columns, self._key_names, strict=True)
        ]
        return sql.SQL("SELECT {} FROM {} s").format(
            sql.SQL(", ").join([*keys, sql.SQL("hashtextextended(ROW({})::text, 0) AS h").format(fields), also]), rows
        )

    def _type(self, column: Column) -> str:
        masked = column.name in self.selection.masks
        return "text" if masked or column.target_type.type is None else column.declared

    def _text(self, column: Column) -> sql.Composable:
        name = sql.Identifier(column.name)
        # a row's text depends on its columns' types, so columns of different types are cast to text first
        same = self._type(column) == self.raw_types[column.name]
        return name if same else sql.SQL("{}::text").format(name)

    def key_texts(self, table: str) -> sql.Composable:
        """Return the expressions that write keys as the comparison does, of texts `k0`, `k1`, … in a table."""
        texts = []
        for number, column in enumerate(self._key_columns):
            value = sql.SQL("{}::{}").format(sql.Identifier(table, f"k{number}"), sql.SQL(self._type(column)))
            is_numeric = self._type(column).startswith("numeric")
            texts.append(sql.SQL("trim_scale({})::text" if is_numeric else "{}::text").format(value))
        return sql.SQL(", ").join(texts)

    def _key_text(self, column: Column) -> sql.Composable:
        name = sql.Identifier(column.name)
        # 1.0 and 1.00 are the same key
        return sql.SQL("trim_scale({})").format(name) if self._type(column).startswith("numeric") else name


def _among(expressions: Sequence[tuple[sql.Composable, str]], keys: Sequence[Key]) -> sql.Composed:
    """Return the condition that the typed values of `expressions` are among `keys`."""
    names = [sql.Identifier(f"k{number}") for number in range(len(expressions))]
    values = sql.SQL(", ").join(
        sql.SQL("{}::text[]").format(sql.Literal([key[number] for key in keys])) for number in range(len(expressions))
    )
    typed = [
        sql.SQL("w.{}::{}").format(name, sql.SQL(type_)) for name, (_, type_) in zip(names, expressions, strict=True)
    ]
    return sql.SQL("({}) IN (SELECT {} FROM unnest({}) AS w ({}))").format(
        sql.SQL(", ").join(expression for expression, _ in expressions),
        sql.SQL(", ").join(typed),
        values,
        sql.SQL(", ").join(names),
    )
