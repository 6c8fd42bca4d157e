"""The SQL that merges staged changes of the log into a table, in the order of the log.

Of the changes of one key, the last one counts. A TOASTed value that did not change is not in the log: it is taken from
the change before, or else from the table's row. After an update of the key, that row is found by the old key.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from singer_postgres.core.change_columns import (
    COMMIT_LSN,
    COMMITTED_AT,
    DELETE,
    NUMBER,
    OPERATION,
    TRUNCATE,
    UNCHANGED,
    UPSERT,
    old_key,
)
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.merge import Into, differs, matched, names
from singer_postgres.core.warehouse.metadata_columns import COMMITS, METADATA
from singer_postgres.core.warehouse.row_counts import RowCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import psycopg

    from singer_postgres.core.warehouse.change_history import ChangeHistory
    from singer_postgres.core.warehouse.metadata_columns import Stamp

    Connection = psycopg.Connection[Any]


class LogMerge:
    """Merges the changes of one stream from a stage into its table.

    Attributes:
        doubt: why rows may differ from the source's after the merge; None if they can't.
    """

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
        make_room: Callable[[Connection, sql.Composable], sql.Composable | None],
        is_partitioned: bool = False,
        commits: bool = False,
        history: ChangeHistory | None = None,
    ) -> None:
        """Prepare the statements.

        Args:
            columns: the stream's columns.
            types: their types in the stage.
            casts: the table's types, by column name, for columns that cast the stream's values.
            make_room: makes the partitions that rows of the stage need; returns a condition as `partitions.make_room`.
            is_partitioned: the table has partitions.
            commits: the table has the columns COMMITS.
            history: keeps all changes.
        """
        self.doubt: str | None = None
        self._stage = stage
        self._make_room = make_room
        self._into = Into(target, key, is_partitioned)
        self._commits = COMMITS if commits else {}
        self._history = history
        self._olds = [old_key(number) for number in range(1, len(key) + 1)]
        self._columns, self._key = columns, key
        self._types, self._casts = types, casts
        self._hard_delete = hard_delete
        self._parts = {
            "stage": stage,
            "target": target,
            "key": names(key),
            "lsn": sql.Identifier(COMMIT_LSN),
            "committed_at": sql.Identifier(COMMITTED_AT),
            "number": sql.Identifier(NUMBER),
            "operation": sql.Identifier(OPERATION),
            "unchanged": sql.Identifier(UNCHANGED),
            "old_key": names(old_key(number) for number in range(1, len(key) + 1)),
            "moved": sql.Identifier(old_key(1)),
        }

    def merge(  # noqa: PLR0913 - each argument has a name
        self,
        connection: Connection,
        stamp: Stamp,
        *,
        after: int | None,
        has_unchanged: bool,
        has_moved: bool,
        has_truncated: bool,
        is_first_load: bool = False,
    ) -> RowCounts:
        """Merge all staged changes; return how many rows they inserted, updated and deleted.

        Args:
            after: the position up to which the table has all transactions; None if all changes are to be applied.
            has_unchanged, has_moved, has_truncated: see `wire.Changes`.
            is_first_load: the table was read while the changes were made, so it has the effect of some already.
        """
        if after is not None:
            before = self._sql("DELETE FROM {stage} WHERE {lsn} < {after}", after=sql.Literal(after))
            connection.execute(before)
        keeps_all = self._history is not None and not is_first_load
        # the history has the changes before a TRUNCATE, too, and their values are looked up before it
        deleted = self._truncate(connection, stamp) if has_truncated and not keeps_all else 0
        # Without statistics, PostgreSQL expects few keys and a plan that reads the table again for each of them.
        connection.execute(self._sql("ANALYZE {stage} ({key})"))
        if has_unchanged:
            self._index(connection)
            while has_moved and self._resolve_moved(connection, is_first_load=is_first_load):
                pass
            self._resolve(connection)
        if self._history is not None and keeps_all:
            self._history.append(connection, self._stage, self._parts["target"], columns=self._columns, key=self._key)
            deleted = self._truncate(connection, stamp) if has_truncated else 0
        within = self._make_room(connection, self._stage)
        row = connection.execute(self._apply(stamp, within)).fetchone()
        assert row
        return RowCounts(inserted=row[0], updated=row[1], deleted=deleted + row[2])

    def _index(self, connection: Connection) -> None:
        """Index the stage by key: each value that is missing is looked up."""
        name = sql.Identifier(f"by_key_{hashlib.sha256(self._stage.as_string().encode()).hexdigest()[:16]}")
        connection.execute(self._sql("CREATE INDEX IF NOT EXISTS {name} ON {stage} ({key}, {number})", name=name))

    def _truncate(self, connection: Connection, stamp: Stamp) -> int:
        """Delete all rows if the table was truncated, and forget the changes before that. Return their number."""
        row = connection.execute(
            self._sql(
                "SELECT {number}, {lsn}, {committed_at} FROM {stage} WHERE {operation} = {truncate} "
                "ORDER BY {number} DESC LIMIT 1",
                truncate=sql.Literal(TRUNCATE),
            )
        ).fetchone()
        if row is None:
            return 0
        connection.execute(self._sql("DELETE FROM {stage} WHERE {number} <= {last}", last=sql.Literal(row[0])))
        # TRUNCATE itself would empty the table for readers with an older snapshot, too
        return connection.execute(self._deletion(stamp, commit=(sql.Literal(row[1]), sql.Literal(row[2])))).rowcount

    def _resolve_moved(self, connection: Connection, *, is_first_load: bool) -> bool:
        """Find unchanged values of rows that got another key; return whether there were such rows.

        A row that got a key more than once takes as many steps. Its values are in the last change of its old key that
        has them, or else in the table.
        """
        rows = self._sql(
            "s.{moved} IS NOT NULL AND s.{unchanged} IS NOT NULL AND NOT EXISTS (SELECT FROM {stage} e WHERE {same} "
            "AND e.{number} < s.{number} AND e.{moved} IS NOT NULL AND e.{unchanged} IS NOT NULL)",
            same=self._equal("e", self._key, "s", self._olds),
        )
        if connection.execute(self._sql("SELECT FROM {stage} s WHERE {rows} LIMIT 1", rows=rows)).fetchone() is None:
            return False
        if is_first_load:
            self._sort_out(connection, rows)
        self._take(connection, rows, of_changes=self._olds, of_table=self._olds)
        return True

    def _sort_out(self, connection: Connection, rows: sql.Composed) -> None:
        """Find unchanged values of rows that got another key while the table was read for the first time.

        If the reader saw that, the row is under its new key in the table, and otherwise under its old one. That is
        certain if no other row had these keys meanwhile. Else another may be there, read under another snapshot, and
        the values are a guess: `doubt` says so.

        Args:
            rows: the condition on the rows.
        """
        is_staged = "EXISTS (SELECT FROM {stage} e WHERE {same} AND {when})"
        of_new, of_old = self._equal("e", self._key, "s", self._key), self._equal("e", self._key, "s", self._olds)
        upsert, delete = sql.Literal(UPSERT), sql.Literal(DELETE)
        known = self._sql("{before} AND (e.{unchanged} IS NULL OR e.{moved} IS NOT NULL)", before=self._before())
        at_new_key = self._sql(
            "EXISTS (SELECT FROM {target} t WHERE {same} AND t._sdc_deleted_at IS NULL)",
            same=self._equal("t", self._key, "s", self._key),
        )
        unknown = rows + self._sql(" AND NOT " + is_staged, same=of_old, when=known)
        others = self._sql(
            f"{is_staged} OR {is_staged.replace('{same}', '{same_old}').replace('{when}', '{when_old}')}",
            same=of_new,
            when=self._sql(
                "(e.{number} < s.{number} OR e.{number} > s.{number} AND e.{operation} = {delete})", delete=delete
            ),
            same_old=of_old,
            when_old=self._sql(
                "(e.{number} < s.{number} AND e.{operation} = {delete} "
                "OR e.{number} > s.{number} AND e.{operation} = {upsert})",
                upsert=upsert,
                delete=delete,
            ),
        )
        doubt = self._sql(
            "SELECT FROM {stage} s WHERE {unknown} AND ({others}) LIMIT 1", unknown=unknown, others=others
        )
        if connection.execute(doubt).fetchone() is not None:
            self.doubt = "rows with large values got keys that other rows had while it was first loaded"
        seen = self._sql("{unknown} AND {at_new_key}", unknown=unknown, at_new_key=at_new_key)
        self._take(connection, seen, of_changes=self._olds, of_table=self._key)

    def _resolve(self, connection: Connection) -> None:
        """Find the unchanged values of all other rows: in a change before, or else in the table."""
        self._take(connection, self._sql("s.{unchanged} IS NOT NULL"), of_changes=self._key, of_table=self._key)

    def _take(
        self, connection: Connection, rows: sql.Composed, *, of_changes: Sequence[str], of_table: Sequence[str]
    ) -> None:
        """Take unchanged values from the last change that has them, or else from the table.

        Args:
            rows: the condition on the rows that lack values.
            of_changes: the columns with the key of the changes.
            of_table: the columns with the key of the table's row.
        """
        toasted = connection.execute(
            self._sql("SELECT DISTINCT unnest({unchanged}) FROM {stage} s WHERE {rows}", rows=rows)
        ).fetchall()
        values = [
            self._sql(
                "{column} = CASE WHEN {place} = ANY (s.{unchanged}) THEN ("
                "SELECT e.{column} FROM ("
                "SELECT e.{number}, e.{column} FROM {stage} e WHERE {same} AND {before} "
                "AND {place} <> ALL (coalesce(e.{unchanged}, '{{}}')) "
                "UNION ALL SELECT -1, t.{column}::{type} FROM {target} t WHERE {same_there}"
                ") e ORDER BY e.{number} DESC LIMIT 1) ELSE s.{column} END",
                column=sql.Identifier(self._columns[place - 1]),
                place=sql.Literal(place),
                type=sql.SQL(self._types[self._columns[place - 1]]),
                same=self._equal("e", self._key, "s", of_changes),
                same_there=self._equal("t", self._key, "s", of_table),
                before=self._before(),
            )
            for (place,) in sorted(toasted)
        ]
        if values:
            update = self._sql(
                "UPDATE {stage} s SET {values}, {unchanged} = NULL WHERE {rows}",
                values=sql.SQL(", ").join(values),
                rows=rows,
            )
            connection.execute(update)

    def _apply(self, stamp: Stamp, within: sql.Composable | None) -> sql.Composed:
        """Return the statement that applies each key's last change, and counts."""
        values = stamp.expressions()
        same, into = matched(self._key, within), replace(self._into, within=within)
        is_deleted = self._sql("s.{operation} = {delete} AND ", delete=sql.Literal(DELETE))
        deletion = self._deletion(stamp, is_deleted + same)
        return self._sql(
            "WITH last AS MATERIALIZED (SELECT DISTINCT ON ({key}) {fields}, {operation}, {lsn}, {committed_at} "
            "FROM {stage} s "
            "ORDER BY {key}, {number} DESC), "
            "deleted AS ({deletion} RETURNING 1), "
            "merged AS (INSERT INTO {target} AS t ({all}) SELECT {selected}, {values} FROM last s "
            "LEFT JOIN {target} t ON {matched} WHERE s.{operation} = {upsert} "
            "AND (t.{first_key} IS NULL OR {differs} OR t._sdc_deleted_at IS NOT NULL) "
            "ON CONFLICT ({key}) DO UPDATE SET {updates} RETURNING {returning}) "
            "SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted), "
            "(SELECT count(*) FROM deleted) FROM {merged}",
            returning=into.returning,
            merged=into.merged,
            fields=self._fields(),
            deletion=deletion,
            all=names([*self._columns, *METADATA, *self._commits]),
            selected=names(self._columns, "s"),
            values=sql.SQL(", ").join([*(values[name] for name in METADATA), *self._commit().values()]),
            matched=same,
            upsert=sql.Literal(UPSERT),
            first_key=sql.Identifier(self._key[0]),
            differs=differs(self._columns),
            updates=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
                for name in [*self._columns, *METADATA, *self._commits]
            ),
        )

    def _commit(self, commit: tuple[sql.Composable, sql.Composable] | None = None) -> dict[str, sql.Composable]:
        """Return the values of the columns of a commit: of a position and a time, or those of `s`."""
        of = commit or (sql.Identifier("s", COMMIT_LSN), sql.Identifier("s", COMMITTED_AT))
        return {
            name: sql.SQL(expression).format(column=column)
            for (name, (_, expression)), column in zip(self._commits.items(), of, strict=False)
        }

    def _fields(self) -> sql.Composable:
        fields = []
        for name in self._columns:
            type_ = self._casts.get(name)
            cast = sql.SQL("s.{0}::{1} AS {0}" if type_ else "s.{0}")
            fields.append(cast.format(sql.Identifier(name), sql.SQL(type_ or "")))
        return sql.SQL(", ").join(fields)

    def _deletion(
        self,
        stamp: Stamp,
        of_last: sql.Composed | None = None,
        *,
        commit: tuple[sql.Composable, sql.Composable] | None = None,
    ) -> sql.Composed:
        """Return the statement that deletes rows of the table, or marks them as deleted.

        Args:
            of_last: the condition that joins them with `last` AS s; None for all rows.
            commit: the position and time of the commit; None for those of `s`.
        """
        if self._hard_delete:
            delete = self._sql("DELETE FROM {target} t")
            return delete if of_last is None else delete + sql.SQL(" USING last s WHERE ") + of_last
        update = self._sql(
            "UPDATE {target} t SET _sdc_deleted_at = {at}, _sdc_extracted_at = {at}, _sdc_batched_at = now(), "
            "_tidemark_loaded_xid = pg_current_xact_id()",
            at=stamp.expressions()["_sdc_extracted_at"],
        )
        for name, value in self._commit(commit).items():
            update += sql.SQL(", {} = {}").format(sql.Identifier(name), value)
        is_there = sql.SQL(" WHERE t._sdc_deleted_at IS NULL")
        return (
            update + is_there
            if of_last is None
            else update + sql.SQL(" FROM last s") + is_there + sql.SQL(" AND ") + of_last
        )

    def _before(self) -> sql.Composed:
        """Return the condition that `e` is an earlier change than `s`, and not one of a row that was deleted since."""
        return self._sql(
            "e.{number} < s.{number} AND e.{operation} = {upsert} AND NOT EXISTS (SELECT FROM {stage} d WHERE {same} "
            "AND d.{number} > e.{number} AND d.{number} < s.{number} AND d.{operation} = {delete})",
            same=self._equal("d", self._key, "e", self._key),
            upsert=sql.Literal(UPSERT),
            delete=sql.Literal(DELETE),
        )

    def _equal(self, left: str, ours: Sequence[str], right: str, theirs: Sequence[str]) -> sql.Composable:
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(left, a), sql.Identifier(right, b))
            for a, b in zip(ours, theirs, strict=True)
        )

    def _sql(self, text: str, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(**self._parts, **more)
