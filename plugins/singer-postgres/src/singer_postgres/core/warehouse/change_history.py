"""`<table>_changes`: every change of a LOG_BASED stream, one row each, written in the transaction that merges it.

It begins when the stream's first load is complete, with a row that says so ('begin'): while a table is read, nothing
tells which of its large values a change had. Where it ends, because nobody asks for it any more, is an 'end'. A changed
key is a 'delete' of the old one and an 'insert' of the new one.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from singer_postgres.core import widening
from singer_postgres.core.change_columns import (
    COMMIT_LSN,
    COMMITTED_AT,
    DELETE,
    NUMBER,
    OPERATION,
    TRUNCATE,
    UPSERT,
    old_key,
)
from singer_postgres.core.errors import ColumnRetypedError, NameTakenError
from singer_postgres.core.sql_compat import quoted, sql
from singer_postgres.core.warehouse import merge, tables
from singer_postgres.core.warehouse.metadata_columns import COMMITS
from singer_postgres.core.warehouse.schema_changes import LOADED_XID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from singer_postgres.core.wire import Cut, Table

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")
_SUFFIX = "_changes"
# A batch takes a fraction of a second. A run that finds years of changes leaves most of them to the next ones.
_EXPIRED_AT_ONCE, _EXPIRE_S = 20_000, 5.0
# what PostgreSQL takes as a name
_LENGTH = 63
_LSN, _AT = COMMITS
# the operations that are no changes, in the order at one position; those of changes are larger
_MARKS = {"begin": 0, "end": 1}
# Each is the order of time, until the source's log positions begin again lower (after its move by a dump), or the
# warehouse's transactions (after a restore).
_ORDERS = ((_LSN, NUMBER), (LOADED_XID, _LSN, NUMBER))
_OWN = {
    _LSN: "bigint",
    # the order in the transaction, and of all streams' changes in it
    NUMBER: "bigint",
    _AT: "timestamp with time zone",
    # insert, update, delete, truncate, begin, end
    OPERATION: "text",
    LOADED_XID: "xid8",
}


class ChangeHistory:
    """The history of one stream's changes."""

    def __init__(self, schema: str, table: Table) -> None:
        self._schema, self._source = schema, table
        self._name = f"{table.name}{_SUFFIX}"
        self._table = sql.Identifier(schema, self._name)
        self._casts: dict[str, str] = {}

    def ensure(self, connection: Connection, types: Mapping[str, str]) -> None:
        """Create the table, or add the columns that the stream has got since.

        Args:
            types: the types of the stream's columns.

        Raises:
            NameTakenError: another table has the name, or the name is too long.
            ColumnRetypedError: a column can't hold the stream's values.
        """
        has = tables.columns_of(connection, self._schema, self._name)
        if len(self._name.encode()) > _LENGTH or (has and not _OWN.keys() <= has.keys()):
            why = "another table" if has else "too long a name"
            msg = (
                f"The history of {self._source.schema}.{self._source.name} would be {self._schema}.{self._name}, and "
                f"that is {why}: take the stream out of change_history, or rename the table."
            )
            raise NameTakenError(msg)
        if has:
            self._widen(connection, types, has)
            return
        create = sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
            self._table, tables.definitions({**_OWN, **types}), merge.names([_LSN, NUMBER])
        )
        connection.execute(create)
        for method, column in (("brin", _AT), ("btree", LOADED_XID)):
            index = sql.SQL("CREATE INDEX ON {} USING {} ({})")
            connection.execute(index.format(self._table, sql.SQL(method), sql.Identifier(column)))

    def _widen(self, connection: Connection, types: Mapping[str, str], has: Mapping[str, str]) -> None:
        actions = []
        for name, type_ in types.items():
            column = sql.Identifier(name)
            if name not in has:
                actions.append(sql.SQL("ADD COLUMN {} {}").format(column, sql.SQL(type_)))
            elif has[name] == type_:
                continue
            elif widening.holds(has[name], type_):
                self._casts[name] = has[name]
            elif widening.widens(has[name], type_):
                actions.append(sql.SQL("ALTER COLUMN {} TYPE {}").format(column, sql.SQL(type_)))
            else:
                msg = (
                    f"{self._schema}.{self._name}.{name} is {has[name]}, and the source's column is {type_} now: its "
                    f"values would be altered or refused. Rename the old column: ALTER TABLE "
                    f"{quoted(self._schema, self._name)} RENAME COLUMN {quoted(name)} TO …;"
                )
                raise ColumnRetypedError(msg)
        if actions:
            connection.execute(sql.SQL("ALTER TABLE {} {}").format(self._table, sql.SQL(", ").join(actions)))

    def go_on(self, connection: Connection, cut: Cut) -> None:
        """Write that the history begins with a cut's start, unless it has the changes before that."""
        if self._last(connection) in {None, "end"}:
            self.begin(connection, cut.start, cut.at)

    def begin(self, connection: Connection, position: str, at: str) -> None:
        """Write that the history has all changes from a position on, and may lack some before."""
        self._mark(connection, "begin", position, at)

    def end(self, connection: Connection, cut: Cut) -> None:
        """Write, once, that it has no changes from a cut's start on; if there is a history of the stream."""
        has = tables.columns_of(connection, self._schema, self._name)
        if _OWN.keys() <= has.keys() and self._last(connection) not in {None, "end"}:
            self._mark(connection, "end", cut.start, cut.at)

    def _last(self, connection: Connection) -> str | None:
        """Return the last operation."""
        lasts = [
            sql.SQL("(SELECT {}, {} FROM {} ORDER BY {} LIMIT 1)").format(
                sql.Identifier(OPERATION),
                sql.Identifier(_AT),
                self._table,
                sql.SQL(", ").join(sql.SQL("{} DESC").format(sql.Identifier(name)) for name in order),
            )
            for order in _ORDERS
        ]
        query = sql.SQL("SELECT * FROM ({}) lasts ORDER BY 2 DESC LIMIT 1").format(sql.SQL(" UNION ALL ").join(lasts))
        row = connection.execute(query).fetchone()
        return str(row[0]) if row else None

    def _mark(self, connection: Connection, operation: str, position: str, at: str) -> None:
        lsn = sql.SQL("({}::pg_lsn - '0/0'::pg_lsn)").format(sql.Literal(position))
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE {} = {} AND {} = 'end'").format(
                self._table, sql.Identifier(_LSN), lsn, sql.Identifier(OPERATION)
            )
        )
        connection.execute(
            sql.SQL(
                "INSERT INTO {} ({}) VALUES ({}, {}, {}::timestamptz, {}, pg_current_xact_id()) ON CONFLICT DO NOTHING"
            ).format(
                self._table,
                merge.names(_OWN),
                lsn,
                sql.Literal(_MARKS[operation]),
                sql.Literal(at),
                sql.Literal(operation),
            )
        )

    def append(
        self,
        connection: Connection,
        stage: sql.Composable,
        target: sql.Composable,
        *,
        columns: Sequence[str],
        key: Sequence[str],
    ) -> None:
        """Write the changes of a stage, in which no value is missing.

        Args:
            target: the stream's table, as it was before these changes.
        """
        values = [
            sql.SQL("s.{}::{}").format(sql.Identifier(name), sql.SQL(self._casts[name]))
            if name in self._casts
            else sql.SQL("s.{}").format(sql.Identifier(name))
            for name in columns
        ]
        insert = sql.SQL(
            "INSERT INTO {history} ({all}) SELECT s.{lsn}, s.{number} * 2 + (s.{moved} IS NOT NULL)::integer, {at}, "
            "CASE WHEN s.{operation} = {delete} THEN 'delete' WHEN s.{operation} = {truncate} THEN 'truncate' "
            # what was before: a change, a TRUNCATE, or the table
            "WHEN s.before_number > coalesce(s.truncated, 0) AND s.before = {upsert} THEN 'update' "
            "WHEN s.before_number IS NULL AND s.truncated IS NULL AND EXISTS (SELECT FROM {target} t WHERE {matched} "
            "AND t._sdc_deleted_at IS NULL) THEN 'update' ELSE 'insert' END, pg_current_xact_id(), {values} "
            "FROM (SELECT s.*, lag({operation}) OVER same AS before, lag({number}) OVER same AS before_number, "
            "max({number}) FILTER (WHERE {operation} = {truncate}) OVER (ORDER BY {number}) AS truncated "
            "FROM {stage} s WINDOW same AS (PARTITION BY {key} ORDER BY {number}, {operation} DESC)) s"
        ).format(
            history=self._table,
            all=merge.names([*_OWN, *columns]),
            lsn=sql.Identifier(COMMIT_LSN),
            number=sql.Identifier(NUMBER),
            moved=sql.Identifier(old_key(1)),
            at=sql.SQL(COMMITS[_AT][1]).format(column=sql.Identifier("s", COMMITTED_AT)),
            operation=sql.Identifier(OPERATION),
            delete=sql.Literal(DELETE),
            truncate=sql.Literal(TRUNCATE),
            upsert=sql.Literal(UPSERT),
            target=target,
            matched=merge.matched(key),
            values=sql.SQL(", ").join(values),
            stage=stage,
            key=merge.names(key),
        )
        connection.execute(insert)

    def expire(self, connection: Connection, at: str, days: float) -> None:
        """Delete changes that are older than some days, the oldest first, in small transactions of their own.

        Changes come in the order of the key and of the transactions that load them, so the oldest are found by these
        indexes. An index on the time would have to be kept up to date with each change, and a BRIN index finds less and
        less once new rows fill the freed pages.

        Args:
            at: until when the days are counted.
        """
        began = time.monotonic()
        for order in _ORDERS:
            delete = self._delete_expired(order, at, days)
            deleted = _EXPIRED_AT_ONCE
            while deleted == _EXPIRED_AT_ONCE:
                with connection.transaction():
                    # both would read all of the table, and the planner knows nothing of how few of its rows are old
                    connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off")
                    deleted = connection.execute(delete).rowcount
                if deleted == _EXPIRED_AT_ONCE and time.monotonic() - began > _EXPIRE_S:
                    _LOGGER.info("Expired changes are left to the next run: table=%s.%s", self._schema, self._name)
                    return

    def _delete_expired(self, order: Sequence[str], at: str, days: float) -> sql.Composed:
        """Return the statement that deletes expired changes among the first in an order."""
        return sql.SQL(
            "WITH oldest AS (SELECT {key}, {at} FROM {table} ORDER BY {order} LIMIT {batch}) "
            "DELETE FROM {table} t USING oldest s WHERE {matched} "
            "AND s.{at} < {now}::timestamptz - make_interval(secs => {seconds})"
        ).format(
            key=merge.names([_LSN, NUMBER]),
            order=merge.names(order),
            at=sql.Identifier(_AT),
            table=self._table,
            batch=sql.Literal(_EXPIRED_AT_ONCE),
            matched=merge.matched([_LSN, NUMBER]),
            now=sql.Literal(at),
            seconds=sql.Literal(days * 86_400.0),
        )
