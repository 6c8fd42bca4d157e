"""The SQL that merges staged changes of the log into a table, in the order of the log.

Of the changes of one key, the last one counts. A TOASTed value that did not change is not in the log: it is taken from
the change before, or else from the table's row. After an update of the key, that row is found by the old key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.change_columns import (
    COMMIT_LSN,
    DELETE,
    NUMBER,
    OPERATION,
    TRUNCATE,
    UNCHANGED,
    UPSERT,
    old_key,
)
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.merge import differs, matched, names
from singer_postgres.core.warehouse.metadata_columns import METADATA
from singer_postgres.core.warehouse.row_counts import RowCounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from singer_postgres.core.warehouse.metadata_columns import Stamp

    Connection = psycopg.Connection[Any]


class LogMerge:
    """Merges the changes of one stream from a stage into its table."""

    def __init__(  # noqa: PLR0913 - each argument has a name
        self,
        *,
        stage: sql.Composable,
        target: sql.Composable,
        columns: Sequence[str],
        key: Sequence[str],
        types: Mapping[str, str],
        casts: Mapping[str, str],
        hard_delete: bool,
    ) -> None:
        """Prepare the statements.

        Args:
            columns: the stream's columns.
            types: their types in the stage.
            casts: the table's types, by column name, for columns that cast the stream's values.
        """
        self._stage, self._target = stage, target
        self._columns, self._key = columns, key
        self._types, self._casts = types, casts
        self._hard_delete = hard_delete
        self._parts = {
            "stage": stage,
            "target": target,
            "key": names(key),
            "number": sql.Identifier(NUMBER),
            "operation": sql.Identifier(OPERATION),
            "unchanged": sql.Identifier(UNCHANGED),
            "old_key": names(old_key(number) for number in range(1, len(key) + 1)),
            "moved": sql.Identifier(old_key(1)),
        }

    def forget_before(self, connection: Connection, lsn: int) -> None:
        """Drop changes of transactions that the table has already."""
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE {} < {}").format(self._stage, sql.Identifier(COMMIT_LSN), sql.Literal(lsn))
        )

    def merge(
        self, connection: Connection, stamp: Stamp, *, has_unchanged: bool, has_moved: bool, has_truncated: bool
    ) -> RowCounts:
        """Merge all staged changes; return how many rows they inserted, updated and deleted."""
        deleted = self._truncate(connection, stamp) if has_truncated else 0
        counts = RowCounts(deleted=deleted)
        first = -1
        if has_unchanged and has_moved:
            while (after := self._next_part(connection, first)) is not None:
                counts = self._merged(connection, stamp, first, after, counts, has_unchanged=True)
                first = after
        return self._merged(connection, stamp, first, None, counts, has_unchanged=has_unchanged)

    def _truncate(self, connection: Connection, stamp: Stamp) -> int:
        """Delete all rows if the table was truncated, and forget the changes before that. Return their number."""
        row = connection.execute(
            self._sql(
                "SELECT max({number}) FROM {stage} WHERE {operation} = {truncate}", truncate=sql.Literal(TRUNCATE)
            )
        ).fetchone()
        if not row or row[0] is None:
            return 0
        connection.execute(self._sql("DELETE FROM {stage} WHERE {number} <= {last}", last=sql.Literal(row[0])))
        # TRUNCATE itself would empty the table for readers with an older snapshot, too
        return connection.execute(self._deletion(stamp)).rowcount

    def _next_part(self, connection: Connection, first: int) -> int | None:
        """Return the first change that must find what the changes since `first` did: see `_resolve`."""
        row = connection.execute(
            self._sql(
                "SELECT min(s.{number}) FROM {stage} s WHERE s.{number} > {first} AND s.{moved} IS NOT NULL "
                "AND s.{unchanged} IS NOT NULL AND EXISTS (SELECT FROM {stage} e WHERE {same} "
                "AND e.{number} < s.{number} AND e.{number} > {first})",
                first=sql.Literal(first),
                same=self._equal("e", self._key, "s", [old_key(n) for n in range(1, len(self._key) + 1)]),
            )
        ).fetchone()
        return None if not row or row[0] is None else int(row[0]) - 1

    def _merged(  # noqa: PLR0913 - one part of the stage
        self,
        connection: Connection,
        stamp: Stamp,
        first: int,
        last: int | None,
        counts: RowCounts,
        *,
        has_unchanged: bool,
    ) -> RowCounts:
        within = self._sql("s.{number} > {first}", first=sql.Literal(first))
        if last is not None:
            within += self._sql(" AND s.{number} <= {last}", last=sql.Literal(last))
        if has_unchanged:
            self._resolve(connection, within, first)
        row = connection.execute(self._apply(within, stamp)).fetchone()
        assert row
        return RowCounts(
            inserted=counts.inserted + row[0], updated=counts.updated + row[1], deleted=counts.deleted + row[2]
        )

    def _resolve(self, connection: Connection, within: sql.Composable, first: int) -> None:
        """Fill in the TOASTed values that did not change.

        First those of rows that got another key: no earlier change of this part had their old key, so the table has
        them. Then those of all others: a change before has them, or else the table.
        """
        toasted = connection.execute(
            self._sql("SELECT DISTINCT unnest({unchanged}) FROM {stage} s WHERE ") + within
        ).fetchall()
        columns = [self._columns[number - 1] for (number,) in sorted(toasted)]
        if not columns:
            return
        olds = [old_key(number) for number in range(1, len(self._key) + 1)]
        for moved in (True, False):
            there = olds if moved else list(self._key)
            values = []
            for column in columns:
                number = self._columns.index(column) + 1
                type_ = sql.SQL(self._types[column])
                value = self._sql(
                    "(SELECT t.{column}::{type} FROM {target} t WHERE {same})",
                    column=sql.Identifier(column),
                    type=type_,
                    same=self._equal("t", self._key, "s", there),
                )
                if not moved:
                    value = self._sql(
                        "(SELECT e.{column} FROM (SELECT e.{number}, e.{column} FROM {stage} e WHERE {same} "
                        "AND e.{number} < s.{number} AND e.{number} > {first} AND e.{operation} = {upsert} "
                        "AND {place} <> ALL (coalesce(e.{unchanged}, '{{}}')) "
                        "UNION ALL SELECT {first}, t.{column}::{type} FROM {target} t WHERE {same_there}) e "
                        "ORDER BY e.{number} DESC LIMIT 1)",
                        column=sql.Identifier(column),
                        type=type_,
                        same=self._equal("e", self._key, "s", self._key),
                        same_there=self._equal("t", self._key, "s", self._key),
                        first=sql.Literal(first),
                        upsert=sql.Literal(UPSERT),
                        place=sql.Literal(number),
                    )
                values.append(
                    self._sql(
                        "{column} = CASE WHEN {place} = ANY (s.{unchanged}) THEN {value} ELSE s.{column} END",
                        column=sql.Identifier(column),
                        place=sql.Literal(number),
                        value=value,
                    )
                )
            connection.execute(
                self._sql("UPDATE {stage} s SET ")
                + sql.SQL(", ").join(values)
                + self._sql(", {unchanged} = NULL WHERE ")
                + within
                + self._sql(" AND s.{unchanged} IS NOT NULL")
                + (self._sql(" AND s.{moved} IS NOT NULL") if moved else sql.SQL(""))
            )

    def _apply(self, within: sql.Composable, stamp: Stamp) -> sql.Composed:
        """Return the statement that applies each key's last change, and counts."""
        values = stamp.expressions()
        is_deleted = self._sql("s.{operation} = {delete} AND ", delete=sql.Literal(DELETE))
        deletion = self._deletion(stamp, is_deleted + matched(self._key))
        return self._sql(
            "WITH last AS MATERIALIZED (SELECT DISTINCT ON ({key}) {fields}, {operation} FROM {stage} s WHERE {within} "
            "ORDER BY {key}, {number} DESC), "
            "deleted AS ({deletion} RETURNING 1), "
            "merged AS (INSERT INTO {target} AS t ({all}) SELECT {selected}, {values} FROM last s "
            "LEFT JOIN {target} t ON {matched} WHERE s.{operation} = {upsert} "
            "AND (t.{first_key} IS NULL OR {differs} OR t._sdc_deleted_at IS NOT NULL) "
            "ON CONFLICT ({key}) DO UPDATE SET {updates} RETURNING xmax = 0 AS inserted) "
            "SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted), "
            "(SELECT count(*) FROM deleted) FROM merged",
            fields=self._fields(),
            within=within,
            deletion=deletion,
            all=names([*self._columns, *METADATA]),
            selected=names(self._columns, "s"),
            values=sql.SQL(", ").join(values[name] for name in METADATA),
            matched=matched(self._key),
            upsert=sql.Literal(UPSERT),
            first_key=sql.Identifier(self._key[0]),
            differs=differs(self._columns),
            updates=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in [*self._columns, *METADATA]
            ),
        )

    def _fields(self) -> sql.Composable:
        fields = []
        for name in self._columns:
            type_ = self._casts.get(name)
            cast = sql.SQL("s.{0}::{1} AS {0}" if type_ else "s.{0}")
            fields.append(cast.format(sql.Identifier(name), sql.SQL(type_ or "")))
        return sql.SQL(", ").join(fields)

    def _deletion(self, stamp: Stamp, of_last: sql.Composed | None = None) -> sql.Composed:
        """Return the statement that deletes rows of the table, or marks them as deleted.

        Args:
            of_last: the condition that joins them with `last` AS s; None for all rows.
        """
        if self._hard_delete:
            delete = self._sql("DELETE FROM {target} t")
            return delete if of_last is None else delete + sql.SQL(" USING last s WHERE ") + of_last
        update = self._sql(
            "UPDATE {target} t SET _sdc_deleted_at = {at}, _sdc_extracted_at = {at}, _sdc_batched_at = now(), "
            "_tidemark_loaded_xid = pg_current_xact_id()",
            at=stamp.expressions()["_sdc_extracted_at"],
        )
        is_there = sql.SQL(" WHERE t._sdc_deleted_at IS NULL")
        return (
            update + is_there
            if of_last is None
            else update + sql.SQL(" FROM last s") + is_there + sql.SQL(" AND ") + of_last
        )

    def _equal(self, left: str, ours: Sequence[str], right: str, theirs: Sequence[str]) -> sql.Composable:
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(left, a), sql.Identifier(right, b))
            for a, b in zip(ours, theirs, strict=True)
        )

    def _sql(self, text: str, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(**self._parts, **more)
