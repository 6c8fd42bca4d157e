"""Changes a column's type where views read the column, which PostgreSQL alone refuses.

The views are dropped and recreated in the same transaction. They keep their definition, owner, grants, options and
comments; materialized views also keep their indexes, storage and statistics, and are filled. A view that can't be
recreated exactly is not dropped. Other objects that depend on a view or on the column, such as functions, are named.

If another role owns a view and this role has no rights of it, functions of that role drop and recreate the view.
`tidemark roles warehouse` creates these functions for the views that dbt creates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import DependentObjectError
from singer_postgres.core.sql_compat import errors, sql
from singer_postgres.core.warehouse import change_triggers, dependents

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    Connection = psycopg.Connection[Any]

# views on the table, and views on those, with their depth
_DEPENDENT = """
    with recursive reads(oid, depth) as (
        select %(table)s::regclass::oid, 0
        union
        select r.ev_class, depth + 1
        from reads
        join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = reads.oid
            and d.classid = 'pg_catalog.pg_rewrite'::regclass
        join pg_catalog.pg_rewrite r on r.oid = d.objid and r.ev_class <> reads.oid
    )
    select c.oid::bigint, c.relkind::text, n.nspname, c.relname, pg_catalog.pg_get_viewdef(c.oid),
        pg_catalog.pg_get_userbyid(c.relowner), coalesce(c.reloptions, '{}'),
        c.relkind = 'm' and c.relispopulated,
        exists (select from pg_catalog.pg_trigger where tgrelid = c.oid and not tgisinternal)
        or exists (select from pg_catalog.pg_rewrite where ev_class = c.oid and rulename <> '_RETURN')
        or exists (select from pg_catalog.pg_attrdef where adrelid = c.oid)
        or exists (
            select from pg_catalog.pg_seclabel where classoid = 'pg_catalog.pg_class'::regclass and objoid = c.oid
        ),
        case when pg_catalog.pg_has_role(c.relowner, 'usage') then 'owned'
            when lender.proowner is null then 'not lent'
            when pg_catalog.pg_has_role(lender.proowner, c.relowner, 'usage') then 'lent' else 'foreign' end,
        current_user::text, pg_catalog.pg_get_userbyid(lender.proowner)
    from (select oid, max(depth) as depth from reads where depth > 0 group by oid) deepest
    join pg_catalog.pg_class c using (oid) join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join (
        select proowner from pg_catalog.pg_proc p join pg_catalog.pg_namespace s on s.oid = p.pronamespace
        where s.nspname = 'tidemark' and p.proname = 'set_view_aside' and p.prosecdef
            and pg_catalog.has_schema_privilege(s.oid, 'usage') and pg_catalog.has_function_privilege(p.oid, 'execute')
    ) lender on true
    order by depth, c.oid
"""
_GRANTS = """
    select privilege_type, case grantee when 0 then null else pg_catalog.pg_get_userbyid(grantee) end, is_grantable,
        attname
    from (
        select acl.*, null as attname from pg_catalog.pg_class, pg_catalog.aclexplode(relacl) acl
        where oid = %(oid)s::oid
        union all
        select acl.*, attname from pg_catalog.pg_attribute, pg_catalog.aclexplode(attacl) acl
        where attrelid = %(oid)s::oid
    ) granted
"""
_COMMENTS = """
    select attname, description
    from pg_catalog.pg_description
    left join pg_catalog.pg_attribute on attrelid = objoid and attnum = objsubid and objsubid > 0
    where classoid = 'pg_catalog.pg_class'::regclass and objoid = %s::oid
"""
_INDEXES = "select pg_catalog.pg_get_indexdef(indexrelid) from pg_catalog.pg_index where indrelid = %s::oid"
# the clauses before and after the options of a materialized view
_STORAGE = """
    select ' USING ' || pg_catalog.quote_ident(amname), ' TABLESPACE ' || pg_catalog.quote_ident(spcname)
    from pg_catalog.pg_class c join pg_catalog.pg_am on pg_am.oid = relam
    left join pg_catalog.pg_tablespace on pg_tablespace.oid = reltablespace
    where c.oid = %s::oid
"""
# statements for the properties that CREATE can't give a materialized view, its columns and indexes
# `tidemark roles warehouse` contains the same SQL
_EXTRAS = """
    with this as (
        select c.oid, reltoastrelid, pg_catalog.format('%%I.%%I', nspname, relname) as name
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace
        where c.oid = %s::oid and relkind = 'm'
    ), indexes as (
        select i.oid, pg_catalog.format('%%I.%%I', nspname, relname) as name, relname, reltablespace, indisclustered
        from this join pg_catalog.pg_index on indrelid = this.oid join pg_catalog.pg_class i on i.oid = indexrelid
        join pg_catalog.pg_namespace n on n.oid = i.relnamespace
    ), statistics as (
        select s.oid, stxowner, stxstattarget, pg_catalog.format('%%I.%%I', nspname, stxname) as name
        from this join pg_catalog.pg_statistic_ext s on stxrelid = this.oid
        join pg_catalog.pg_namespace n on n.oid = stxnamespace
    )
    select pg_catalog.format('ALTER MATERIALIZED VIEW %%s SET (toast.%%s)', name,
        pg_catalog.array_to_string(reloptions, ', toast.'))
    from this join pg_catalog.pg_class toast on toast.oid = this.reltoastrelid where reloptions is not null
    union all
    select pg_catalog.format('ALTER MATERIALIZED VIEW %%s ALTER COLUMN %%I %%s', name, attname, change)
    from this join pg_catalog.pg_attribute on attrelid = this.oid and attnum > 0
    join pg_catalog.pg_type t on t.oid = atttypid
    cross join lateral (values
        (case when attstattarget >= 0 then 'SET STATISTICS ' || attstattarget end),
        ('SET (' || pg_catalog.array_to_string(attoptions, ', ') || ')'),
        (case when attstorage <> typstorage then 'SET STORAGE ' || case attstorage
            when 'p' then 'PLAIN' when 'e' then 'EXTERNAL' when 'm' then 'MAIN' else 'EXTENDED' end end),
        (case attcompression when 'p' then 'SET COMPRESSION pglz' when 'l' then 'SET COMPRESSION lz4' end)
    ) as changes (change)
    where change is not null
    union all
    select pg_catalog.format('ALTER INDEX %%s SET TABLESPACE %%I', name, spcname)
    from indexes join pg_catalog.pg_tablespace t on t.oid = reltablespace
    union all
    select pg_catalog.format('ALTER INDEX %%s ALTER COLUMN %%s SET STATISTICS %%s', name, attnum, attstattarget)
    from indexes join pg_catalog.pg_attribute on attrelid = indexes.oid where attstattarget >= 0
    union all
    select pg_catalog.format('COMMENT ON INDEX %%s IS %%L', name, description)
    from indexes join pg_catalog.pg_description on classoid = 'pg_catalog.pg_class'::regclass and objoid = indexes.oid
    union all
    select pg_catalog.format('ALTER MATERIALIZED VIEW %%s CLUSTER ON %%I', this.name, relname)
    from this, indexes where indisclustered
    union all
    select statement from statistics cross join lateral (values
        (pg_catalog.pg_get_statisticsobjdef(oid)),
        (case when stxstattarget >= 0
            then pg_catalog.format('ALTER STATISTICS %%s SET STATISTICS %%s', name, stxstattarget) end),
        (pg_catalog.format('COMMENT ON STATISTICS %%s IS %%L', name,
            nullif(pg_catalog.obj_description(oid, 'pg_statistic_ext'), ''))),
        (pg_catalog.format('ALTER STATISTICS %%s OWNER TO %%I', name, pg_catalog.pg_get_userbyid(stxowner)))
    ) as statements (statement) where statement is not null
"""
Grant = tuple[str, "str | None", bool, "str | None"]


@dataclass(frozen=True)
class _View:
    """A view, with everything needed to recreate it."""

    kind: str
    name: sql.Identifier
    definition: str
    owner: str
    options: list[str]
    filled: bool
    grants: list[Grant]
    comments: list[tuple[str | None, str]]
    indexes: list[str]
    storage: tuple[str, str]
    extras: list[str]

    @property
    def _what(self) -> sql.SQL:
        return sql.SQL(_kind(self.kind))

    def drop(self, connection: Connection) -> None:
        """Drop the view, without CASCADE: other dependent objects block this."""
        connection.execute(sql.SQL("DROP {} {}").format(self._what, self.name))

    def make(self, connection: Connection) -> None:
        """Recreate the view as it was."""
        options = sql.SQL(f" WITH ({', '.join(self.options)})" if self.options else "")
        query = sql.SQL(self.definition.rstrip().rstrip(";"))
        using, place = map(sql.SQL, self.storage)
        statement = sql.SQL("CREATE {} {}{}{}{} AS {}").format(self._what, self.name, using, options, place, query)
        if self.kind == "m":
            statement += sql.SQL(" WITH DATA" if self.filled else " WITH NO DATA")
        connection.execute(statement)
        for each in self.indexes + self.extras:
            connection.execute(sql.SQL(each))
        for column, text in self.comments:
            on = sql.SQL("COLUMN {}.{}").format(self.name, sql.Identifier(column)) if column else None
            on = on or sql.SQL("{} {}").format(self._what, self.name)
            connection.execute(sql.SQL("COMMENT ON {} IS {}").format(on, sql.Literal(text)))
        connection.execute(sql.SQL("ALTER {} {} OWNER TO {}").format(self._what, self.name, sql.Identifier(self.owner)))
        self._grant(connection)

    def _grant(self, connection: Connection) -> None:
        oid = connection.execute("select %s::regclass::oid::bigint", [self.name.as_string(connection)]).fetchone()
        assert oid
        # default privileges may have granted more than the view had
        for _, grantee, _, _ in _grants(connection, oid[0]):
            if grantee != self.owner:
                connection.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(self.name, _role(grantee)))
        for privilege, grantee, may_grant, column in self.grants:
            if grantee == self.owner:
                continue
            of = sql.SQL(" ({})").format(sql.Identifier(column)) if column else sql.SQL("")
            connection.execute(
                sql.SQL("GRANT {}{} ON {} TO {}{}").format(
                    sql.SQL(privilege),
                    of,
                    self.name,
                    _role(grantee),
                    sql.SQL(" WITH GRANT OPTION" if may_grant else ""),
                )
            )


@dataclass
class _LentView:
    """A view that another role owns. That role's functions drop and recreate it."""

    name: sql.Identifier
    oid: int
    _aside: int | None = None

    def drop(self, connection: Connection) -> None:
        """Call the owner's function that saves and drops the view."""
        row = connection.execute("SELECT tidemark.set_view_aside(%s::oid)", [self.oid]).fetchone()
        assert row
        self._aside = row[0]

    def make(self, connection: Connection) -> None:
        """Call the owner's function that recreates the view."""
        connection.execute("SELECT tidemark.put_view_back(%s)", [self._aside])


def alter_type(
    connection: Connection, table: sql.Identifier, column: str, type_: str, *, cast: bool = False
) -> list[str]:
    """Change the type of a column, and return the views that were recreated for it.

    Runs in the caller's transaction, which must be rolled back if this raises.

    Args:
        cast: add an explicit cast, for types that the server doesn't convert implicitly. It may change values, so the
            triggers that log changes for dbt stay away, and dbt computes all rows.

    Raises:
        SingerPostgresError: a view can't be recreated exactly.
        psycopg.Error: the server refuses something.
    """
    name = sql.Identifier(column)
    statement = sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(table, name, sql.SQL(type_))
    if cast:
        statement += sql.SQL(" USING {}::{}").format(name, sql.SQL(type_))
    try:
        with connection.transaction():
            connection.execute(statement)
    except (errors.FeatureNotSupported, errors.SyntaxError):
        # so that nobody creates another view on the table meanwhile
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
        triggers = change_triggers.set_aside(connection, table, [column])
        views = _dependent(connection, table, column)
        if not views and triggers is None:
            raise
        for view in reversed(views):
            view.drop(connection)
        connection.execute(statement)
        for view in views:
            view.make(connection)
        if not cast:
            change_triggers.create(connection, triggers or [])
        return [view.name.as_string(connection) for view in views]
    return []


def refusals(connection: Connection, table: sql.Identifier) -> list[str]:
    """Return the reasons why columns of `table` that other objects read can't change their type; empty if they can."""
    found = list(_found(connection, table))
    return [why for *_, why in found if why] + dependents.obstacles(
        connection, table, None, [view[0] for view, *_ in found]
    )


def _dependent(connection: Connection, table: sql.Identifier, column: str) -> list[_View | _LentView]:
    """Return the views that depend on `table`. Each view comes after the views that it reads."""
    views: list[_View | _LentView] = []
    found = list(_found(connection, table))
    for (oid, kind, schema, name, definition, owner, options, filled), lent, why in found:
        if why:
            raise DependentObjectError(why)
        view = sql.Identifier(schema, name)
        if lent:
            views.append(_LentView(view, oid))
            continue
        comments = connection.execute(_COMMENTS, [oid]).fetchall()
        indexes = [row[0] for row in connection.execute(_INDEXES, [oid])]
        grants = _grants(connection, oid)
        using, place = connection.execute(_STORAGE, [oid]).fetchone() or (None, None)
        extras = [row[0] for row in connection.execute(_EXTRAS, [oid])]
        storage = using or "", place or ""
        views.append(_View(kind, view, definition, owner, options, filled, grants, comments, indexes, storage, extras))
    for why in dependents.obstacles(connection, table, column, [view[0] for view, *_ in found]):
        raise DependentObjectError(why)
    return views


def _found(connection: Connection, table: sql.Identifier) -> Iterator[tuple[tuple[Any, ...], bool, str]]:
    """Yield each dependent view, whether its owner lends functions for it, and why it can't be recreated, if so."""
    for *view, has_more, right, role, lender in connection.execute(
        _DEPENDENT, {"table": table.as_string(connection)}
    ).fetchall():
        _, kind, schema, name, _, owner, *_ = view
        says = f"{schema}.{name}, which reads {'.'.join(table._obj)},"  # noqa: SLF001 - has no public name
        drop = f"DROP {_kind(kind)} {sql.Identifier(schema, name).as_string(connection)} CASCADE;"
        drop = f"Drop it with all that depends on it, run this again, and create it again. To drop it: {drop}"
        why = ""
        if kind not in "vm" or has_more:
            has = "has triggers, rules, defaults or security labels, or is not a view"
            why = f"{says} {has}: it can't be recreated as it is. {drop}"
        elif right == "not lent":
            why = (
                f"{says} belongs to {owner}, so {role} can't recreate it. Run the SQL of `tidemark roles warehouse` "
                f"in the warehouse as its owner, which lets {role} recreate the views of dbt's role. {drop}"
            )
        elif right == "foreign":
            why = f"{says} belongs to {owner}, and not to {role} or {lender}: it can't be recreated. {drop}"
        yield tuple(view), right == "lent", why


def _kind(kind: str) -> str:
    return "MATERIALIZED VIEW" if kind == "m" else "VIEW"


def _grants(connection: Connection, oid: int) -> list[Grant]:
    return connection.execute(_GRANTS, {"oid": oid}).fetchall()


def _role(name: str | None) -> sql.Composable:
    return sql.Identifier(name) if name else sql.SQL("PUBLIC")
