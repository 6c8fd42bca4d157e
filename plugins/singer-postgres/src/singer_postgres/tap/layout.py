"""The layout of a relation, which must not change while its stream is read: its tables, their files, and its columns.

A stream is read in many short transactions. Between two of them, no lock is held, and anyone may change the table. So
each transaction locks the table and compares its layout with the layout at the stream's opening.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812

# everything that a query on the relation reads: partitions, child tables, and tables below views
_TREE = """
    with recursive part(oid) as (
        select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %(schema)s and c.relname = %(name)s and c.relkind in ('r', 'p', 'v', 'm', 'f')
        union
        select below.oid from part cross join lateral (
            select inhrelid from pg_catalog.pg_inherits where inhparent = part.oid
            union all
            select d.refobjid from pg_catalog.pg_rewrite r
            join pg_catalog.pg_class v on v.oid = r.ev_class and v.relkind = 'v'
            join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
                and d.refclassid = 'pg_catalog.pg_class'::regclass
            where r.ev_class = part.oid
        ) below(oid)
    )
"""
_KNOWN = "with part(oid) as (select unnest(%(oids)s::bigint[]::oid[]))"
# plain catalog columns: functions that take an oid may answer from the session's cache
_LAYOUT = """
    , main(oid) as ({main})
    select main.oid::bigint, pg_catalog.row_security_active(main.oid),
        (
            select json_agg(json_build_array(
                c.oid::bigint, c.relfilenode::bigint, n.nspname, c.relname,
                -- changes when a view is replaced
                (select max(r.xmin::text) from pg_catalog.pg_rewrite r where r.ev_class = c.oid and c.relkind = 'v')
            ))
            from part join pg_catalog.pg_class c using (oid) join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'v', 'm', 'f')
        ),
        (
            select json_agg(json_build_array(attnum, attname, atttypid::bigint, atttypmod))
            from pg_catalog.pg_attribute where attrelid = main.oid and attnum > 0 and not attisdropped
        )
    from main
"""
_BY_NAME = _TREE + _LAYOUT.format(
    main="""
    select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %(schema)s and c.relname = %(name)s
"""
)
_BY_OID = _KNOWN + _LAYOUT.format(main="select oid from pg_catalog.pg_class where oid = %(oid)s::bigint::oid")


@dataclass(frozen=True)
class Layout:
    """A relation's layout at one instant.

    Attributes:
        oid: the relation's oid.
        hides_rows: row-level security applies to this role.
        parts: relfilenode, schema, name and, for a view, version of the relation and of everything that is read with
            it, by oid.
        columns: attnum, type and type modifier of the relation's columns, by name.
    """

    oid: int
    hides_rows: bool
    parts: dict[int, tuple[int, str, str, str | None]]
    columns: dict[str, tuple[int, int, int]]

    def change(self, now: Layout | None, *, parts: Iterable[int], columns: Iterable[str]) -> str | None:
        """Return the change that keeps reading from continuing; None if there is no such change.

        New and detached partitions are allowed, and so are changes of columns that are not read.

        Args:
            now: the layout now; None if the relation is gone.
            parts: the oids of the tables that are read.
            columns: the names of the columns that are read.
        """
        if now is None:
            return "it was dropped"
        if change := self.changed_column(now, columns):
            return change
        for oid in parts:
            before, found = self.parts[oid], now.parts.get(oid)
            if found is None:
                return f"{before[1]}.{before[2]} was dropped"
            if found != before:
                return _difference(before, found)
        return None

    def changed_column(self, now: Layout, columns: Iterable[str]) -> str | None:
        """Return what happened to a column that is read; None if all are unchanged."""
        for name in columns:
            if self.columns.get(name) != now.columns.get(name):
                return f"column {name} was {'altered' if name in now.columns else 'dropped or renamed'}"
        return None

    def change_under_name(self, now: Layout, *, columns: Iterable[str]) -> str | None:
        """Return how the layout `now`, found under the same name, differs; None if reading can continue."""
        if now.oid != self.oid:
            return "it was dropped and created again"
        if gone := self.parts.keys() - now.parts:
            _, schema, name, _ = self.parts[min(gone)]
            return f"{schema}.{name} is no longer part of it"
        return self.change(now, parts=self.parts, columns=columns)


def _difference(before: tuple[int, str, str, str | None], now: tuple[int, str, str, str | None]) -> str:
    file, schema, name, version = before
    if now[1:3] != (schema, name):
        return f"{schema}.{name} was renamed to {now[1]}.{now[2]}"
    if now[0] != file:
        return f"{schema}.{name} was truncated or rewritten"
    assert now[3] != version
    return f"view {schema}.{name} was replaced"


def by_name(connection: Connection, schema: str, name: str) -> Layout | None:
    """Return the layout of a relation and of everything read with it; None if the relation doesn't exist."""
    return _read(connection, _BY_NAME, {"schema": schema, "name": name})


def by_oid(connection: Connection, oid: int, parts: Sequence[int]) -> Layout | None:
    """Return the layout of a relation and of some of its parts; None if the relation is gone."""
    return _read(connection, _BY_OID, {"oid": oid, "oids": [oid, *parts]})


def _read(connection: Connection, query: str, parameters: dict[str, Any]) -> Layout | None:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        row = cursor.fetchone()
    if row is None:
        return None
    oid, hides_rows, parts, columns = row
    return Layout(
        oid,
        bool(hides_rows),
        {part: tuple(rest) for part, *rest in parts or ()},
        {name: (number, type_, modifier) for number, name, type_, modifier in columns or ()},
    )
