"""Checks whether the rows that earlier runs read are still valid. Queries the tables where the catalogs can't tell.

A run reads only the rows stamped since the last run. It assumes that all other rows are unchanged, and that in a new
column they hold the value that the warehouse gives them. If anything contradicts that, the stream is read again from
its beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import literal, sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.relations import Column
    from singer_postgres.core.source.stream_query import ReadColumns, StreamQuery

# escape characters in the text of arrays, composites and ranges
_ESCAPES = '\\"'
_NO_ESCAPES = str.maketrans("", "", _ESCAPES)
# a function of PostgreSQL takes at most 100 arguments
_ARGUMENTS = 50

# The condition on a catalog's or a table's rows that were written since. It compares ages, which count back from now,
# because xids are reused.
_SINCE = "pg_catalog.age({table}.xmin) <= pg_catalog.age(%s::xid8::xid)"
# What a view depends on: views, functions and columns, and the tables below it, because a view has no file of its own.
_REPLACED = """
    select 1, n.nspname || '.' || v.relname || ' was replaced'
    from pg_catalog.pg_rewrite r join pg_catalog.pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
    join pg_catalog.pg_namespace n on n.oid = v.relnamespace
    where r.ev_class = any(%(parts)s::bigint[]::oid[]) and {of_rule}
    union all
    select 2, 'function ' || p.oid::regprocedure || ', which it calls, was replaced'
    from pg_catalog.pg_rewrite r
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
        and d.refclassid = 'pg_catalog.pg_proc'::regclass
    join pg_catalog.pg_proc p on p.oid = d.refobjid
    where r.ev_class = any(%(parts)s::bigint[]::oid[]) and {of_function}
    union all
    select 3, format('column %%I of %%s was altered', a.attname, a.attrelid::regclass)
    from pg_catalog.pg_rewrite r
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
        and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> r.ev_class
    join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid and a.attnum > 0
    where r.ev_class = any(%(parts)s::bigint[]::oid[]) and {of_column}
    union all
    select 4, i.inhrelid::regclass || ' was attached to a table that it reads'
    from pg_catalog.pg_inherits i where i.inhparent = any(%(parts)s::bigint[]::oid[]) and {of_part}
    union all
    select 5, c.oid::regclass || ', which it reads, was truncated or rewritten'
    from pg_catalog.pg_class c where c.oid = any(%(parts)s::bigint[]::oid[]) and c.relkind = 'r' and {of_file}
        and pg_catalog.age(c.relfrozenxid) <= pg_catalog.age(%(seen)s::xid8::xid)
    order by 1, 2 limit 1
""".format(  # noqa: S608 - no value is in it
    **{
        name: _SINCE.format(table=table).replace("%s", "%(seen)s")
        for name, table in (
            ("of_rule", "r"),
            ("of_function", "p"),
            ("of_column", "a"),
            ("of_part", "i"),
            ("of_file", "c"),
        )
    }
)
_ALTERED = """
    select a.attname, a.attgenerated = 'v', pg_catalog.has_table_privilege(a.attrelid, 'select')
    from pg_catalog.pg_attribute a
    where a.attrelid = %s::bigint::oid and a.attname = any(%s) and {of_column} order by a.attnum
""".format(of_column=_SINCE.format(table="a"))  # noqa: S608
# partitions and child tables, at any depth
_ATTACHED = """
    with recursive parts(oid, is_new) as (
        select i.inhrelid, {of_part} from pg_catalog.pg_inherits i
        where i.inhparent = %s::bigint::oid
        union
        select i.inhrelid, {of_part} from parts join pg_catalog.pg_inherits i on i.inhparent = parts.oid
    )
    select n.nspname, c.relname from parts
    join pg_catalog.pg_class c using (oid) join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where parts.is_new and pg_catalog.has_table_privilege(c.oid, 'select') order by 1, 2
""".format(of_part=_SINCE.format(table="i"))  # noqa: S608
# TRUNCATE creates a new file, which is no older than its oldest row. So do commands that move rows unchanged, such as
# VACUUM FULL. VACUUM itself writes statistics, but doesn't give the row of pg_class a new xmin.
_NEW_FILES = """
    select count(*), bool_and(pg_catalog.has_table_privilege(c.oid, 'select'))
    from (
        select %s::bigint::oid as oid
        union
        select relid::oid from pg_catalog.pg_partition_tree(%s::bigint::oid)
    ) part join pg_catalog.pg_class c using (oid)
    where c.relkind = 'r' and {of_file} and pg_catalog.age(c.relfrozenxid) <= pg_catalog.age(%s::xid8::xid)
""".format(of_file=_SINCE.format(table="c"))  # noqa: S608
# the types that values consist of, with enum labels and composite attributes that were written since
_TYPES = """
    with recursive made_of(attname, oid) as (
        select attname, atttypid from pg_catalog.pg_attribute where attrelid = %s::bigint::oid and attname = any(%s)
        union
        select attname, part from made_of join pg_catalog.pg_type t using (oid) cross join lateral (
            values (t.typelem), (t.typbasetype)
            union all
            select r.rngsubtype from pg_catalog.pg_range r where r.rngtypid = t.oid
            union all
            select r.rngtypid from pg_catalog.pg_range r where r.rngmultitypid = t.oid
            union all
            select a.atttypid from pg_catalog.pg_attribute a
            where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        ) parts(part) where part <> 0
    )
    select attname,
        array(select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = made_of.oid and {of_enum}),
        t.typtype = 'c' and exists (
            select from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and {of_attribute}
        )
    from made_of join pg_catalog.pg_type t using (oid) where t.typtype in ('c', 'e')
""".format(of_enum=_SINCE.format(table="e"), of_attribute=_SINCE.format(table="a"))  # noqa: S608


def why_not_valid(  # noqa: PLR0911, PLR0913 - one return for each reason; each argument has a name
    connection: Connection,
    selection: StreamQuery,
    before: ReadColumns,
    bound: sql.Composable | None,
    *,
    parts: Sequence[int],
    fills: bool,
    stamped: bool,
    resumes: bool,
) -> str | None:
    """Return why rows that earlier runs read must be read again; None if they are valid.

    Args:
        connection: a connection in the stream's snapshot.
        before: what earlier runs read of the relation.
        parts: oids of the relation and of everything that is read with it.
        bound: the condition on the rows that this run reads anyway; None if that can't be said.
        fills: the warehouse gets the value that old rows have in a new column, if all have the same value.
        stamped: each change of a row gives it a new replication key.
        resumes: the run resumes a first load, and so reads partitions that were attached since.
    """
    if why := selection.unread(before):
        return why
    names = {column.name for column in selection.columns}
    added = [column for column in selection.columns if not selection.was_read(column, before)]
    read = sorted(names - {column.name for column in added})
    if before.seen is not None:
        if selection.relation.kind in "vm" and (why := _replaced(connection, parts, before.seen)):
            return why
        if why := _altered(connection, selection, read, before.seen, bound):
            return why
        if stamped and _was_emptied(connection, selection, before.seen, bound):
            return "it was truncated or rewritten, and rows were written without a new replication key"
        if why := _of_types(connection, selection, read, before.seen, bound):
            return why
    for some in _pieces(added):
        if _holds(connection, selection, bound, [selection.contradicts(column, fills=fills) for column in some]):
            which = ", ".join(column.name for column in some)
            verb = "was" if len(some) == 1 else "were"
            return f"{which} {verb} added, with values in existing rows"
    if before.seen is not None and bound is not None and not resumes:
        return _attached(connection, selection, before.seen, bound)
    return None


def _replaced(connection: Connection, parts: Sequence[int], seen: str) -> str | None:
    """Return which part of a view was replaced since; its rows don't show when they were written."""
    rows = _ask(connection, _REPLACED, {"parts": list(parts), "seen": seen})
    return str(rows[0][1]) if rows else None


def _altered(
    connection: Connection, selection: StreamQuery, names: Sequence[str], seen: str, bound: sql.Composable | None
) -> str | None:
    """Look for altered columns whose rows were rewritten without a new stamp: ALTER … TYPE … USING."""
    relation = selection.relation
    if relation.kind in "vm":
        return None
    rows = _ask(connection, _ALTERED, [relation.oid, list(names), seen])
    if not rows:
        return None
    which = ", ".join(name for name, *_ in rows)
    # Virtual columns and foreign tables have no rows to check, and this role may lack the right to check others.
    computed = [name for name, is_virtual, _ in rows if is_virtual]
    unseen = relation.kind == "f" or (relation.kind == "p" and not relation.leaves) or not rows[0][2]
    if computed or unseen or _holds(connection, selection, bound, [written_since(seen)]):
        return f"{', '.join(computed) or which} was altered, and rows were written without a new replication key"
    return None


def _was_emptied(connection: Connection, selection: StreamQuery, seen: str, bound: sql.Composable | None) -> bool:
    """Look for new rows with old stamps in a table that was emptied since, as after restoring a copy."""
    relation = selection.relation
    ((count, readable),) = _ask(connection, _NEW_FILES, [relation.oid, relation.oid, seen, seen])
    if not count or relation.kind not in "rp":
        return False
    # the rows of a foreign partition don't show when they were written
    unseen = not readable or (relation.kind == "p" and not relation.leaves)
    return unseen or _holds(connection, selection, bound, [written_since(seen)])


def written_since(seen: str) -> sql.Composable:
    """Return the condition on rows that were written since."""
    return sql.SQL("pg_catalog.age(xmin) <= pg_catalog.age({}::xid8::xid)").format(sql.Literal(seen))


def _of_types(
    connection: Connection, selection: StreamQuery, names: Sequence[str], seen: str, bound: sql.Composable | None
) -> str | None:
    """Look for values whose text changed when their type was altered: a renamed label, a new attribute."""
    for name, labels, is_altered in _ask(connection, _TYPES, [selection.relation.oid, list(names), seen, seen]):
        # Old rows can't contain a new label, but they can contain a renamed one. Arrays and composites escape labels.
        shows = [
            sql.SQL("position({} in translate({}::text, {}, '')) > 0").format(
                literal(label.translate(_NO_ESCAPES)), sql.Identifier(name), literal(_ESCAPES)
            )
            for label in labels
        ]
        if is_altered or (shows and _holds(connection, selection, bound, shows)):
            return f"the type of {name} was altered"
    return None


def _attached(connection: Connection, selection: StreamQuery, seen: str, bound: sql.Composable) -> str | None:
    for schema, name in _ask(connection, _ATTACHED, [seen, selection.relation.oid, seen]):
        if _is(connection, selection.exists(sql.SQL("({}) IS NOT TRUE").format(bound), table=(schema, name))):
            return f"{schema}.{name} was attached to it, with rows before the bookmark"
    return None


def _holds(
    connection: Connection, selection: StreamQuery, bound: sql.Composable | None, any_of: Iterable[sql.Composable]
) -> bool:
    """Return whether any row that this run doesn't read meets one of the conditions."""
    condition = sql.SQL("({})").format(sql.SQL(" OR ").join(any_of))
    if bound is not None:
        condition = sql.SQL("({}) IS NOT TRUE AND ").format(bound) + condition
    return _is(connection, selection.exists(condition))


def _pieces(columns: Sequence[Column]) -> Iterator[Sequence[Column]]:
    for first in range(0, len(columns), _ARGUMENTS):
        yield columns[first : first + _ARGUMENTS]


def _ask(
    connection: Connection, query: str | sql.Composable, parameters: Sequence[object] | Mapping[str, object] = ()
) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters or None)
        return list(cursor.fetchall())


def _is(connection: Connection, query: str | sql.Composable, parameters: Sequence[object] = ()) -> bool:
    return bool(_ask(connection, query, parameters)[0][0])
