"""Changes a column's type also where views read it, which PostgreSQL refuses.

The views are dropped and made again in the same transaction: definition, owner, grants, options and comments as they
were; materialized ones with their indexes, and filled. What can't be put back as it was is not taken away.

Views of a role that this one has no rights of are set aside and put back by that role's own functions, where it lends
them: `tidemark roles warehouse` has them for the views that dbt makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from singer_postgres.errors import SingerPostgresError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    Connection = psycopg.Connection[Any]

# those that read the table, and those that read these; the deeper, the later
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
        or exists (select from pg_catalog.pg_attrdef where adrelid = c.oid),
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

Grant = tuple[str, "str | None", bool, "str | None"]


@dataclass(frozen=True)
class _View:
    """A view, with all that it is made again from."""

    kind: str
    name: sql.Identifier
    definition: str
    owner: str
    options: list[str]
    filled: bool
    grants: list[Grant]
    comments: list[tuple[str | None, str]]
    indexes: list[str]

    @property
    def _what(self) -> sql.SQL:
        return sql.SQL(_kind(self.kind))

    def drop(self, connection: Connection) -> None:
        """Drop it alone: what else depends on it keeps it."""
        connection.execute(sql.SQL("DROP {} {}").format(self._what, self.name))

    def make(self, connection: Connection) -> None:
        """Make it as it was."""
        options = sql.SQL(f" WITH ({', '.join(self.options)})" if self.options else "")
        query = sql.SQL(self.definition.rstrip().rstrip(";"))
        statement = sql.SQL("CREATE {} {}{} AS {}").format(self._what, self.name, options, query)
        if self.kind == "m":
            statement += sql.SQL(" WITH DATA" if self.filled else " WITH NO DATA")
        connection.execute(statement)
        for index in self.indexes:
            connection.execute(sql.SQL(index))
        for column, text in self.comments:
            on = sql.SQL("COLUMN {}.{}").format(self.name, sql.Identifier(column)) if column else None
            on = on or sql.SQL("{} {}").format(self._what, self.name)
            connection.execute(sql.SQL("COMMENT ON {} IS {}").format(on, sql.Literal(text)))
        connection.execute(sql.SQL("ALTER {} {} OWNER TO {}").format(self._what, self.name, sql.Identifier(self.owner)))
        self._grant(connection)

    def _grant(self, connection: Connection) -> None:
        oid = connection.execute("select %s::regclass::oid::bigint", [self.name.as_string(connection)]).fetchone()
        assert oid
        # what default privileges gave that it didn't have
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
    """A view of another role's, which that role's functions set aside and put back."""

    name: sql.Identifier
    oid: int
    _aside: int | None = None

    def drop(self, connection: Connection) -> None:
        """Have it saved and dropped."""
        row = connection.execute("SELECT tidemark.set_view_aside(%s::oid)", [self.oid]).fetchone()
        assert row
        self._aside = row[0]

    def make(self, connection: Connection) -> None:
        """Have it made as it was."""
        connection.execute("SELECT tidemark.put_view_back(%s)", [self._aside])


def alter_type(
    connection: Connection, table: sql.Identifier, column: str, type_: str, *, cast: bool = False
) -> list[str]:
    """Change the type of a column; return the views that were made again for it.

    In a transaction of the caller's, which is rolled back if this raises.

    Args:
        cast: by a cast, where the server makes none by itself.

    Raises:
        SingerPostgresError: a view can't be made again as it is.
        psycopg.Error: the server refuses something.
    """
    name = sql.Identifier(column)
    statement = sql.SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(table, name, sql.SQL(type_))
    if cast:
        statement += sql.SQL(" USING {}::{}").format(name, sql.SQL(type_))
    try:
        with connection.transaction():
            connection.execute(statement)
    except errors.FeatureNotSupported:
        # nobody makes another view on it meanwhile
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
        views = _dependent(connection, table)
        if not views:
            raise
        for view in reversed(views):
            view.drop(connection)
        connection.execute(statement)
        for view in views:
            view.make(connection)
        return [view.name.as_string(connection) for view in views]
    return []


def refusals(connection: Connection, table: sql.Identifier) -> list[str]:
    """Return why columns of `table` that views read can't change their type; nothing if they can."""
    return [why for *_, why in _found(connection, table) if why]


def _dependent(connection: Connection, table: sql.Identifier) -> list[_View | _LentView]:
    """Return the views that depend on `table`, each after those that it reads."""
    views: list[_View | _LentView] = []
    for (oid, kind, schema, name, definition, owner, options, filled), lent, why in _found(connection, table):
        if why:
            raise SingerPostgresError(why)
        view = sql.Identifier(schema, name)
        if lent:
            views.append(_LentView(view, oid))
            continue
        comments = connection.execute(_COMMENTS, [oid]).fetchall()
        indexes = [row[0] for row in connection.execute(_INDEXES, [oid])]
        grants = _grants(connection, oid)
        views.append(_View(kind, view, definition, owner, options, filled, grants, comments, indexes))
    return views


def _found(connection: Connection, table: sql.Identifier) -> Iterator[tuple[tuple[Any, ...], bool, str]]:
    """Yield each dependent view, whether it is lent, and why it can't be made again, if it can't."""
    for *view, has_more, right, role, lender in connection.execute(
        _DEPENDENT, {"table": table.as_string(connection)}
    ).fetchall():
        _, kind, schema, name, _, owner, *_ = view
        says = f"{schema}.{name}, which reads {'.'.join(table._obj)},"  # noqa: SLF001 - has no public name
        drop = f"DROP {_kind(kind)} {sql.Identifier(schema, name).as_string(connection)} CASCADE;"
        drop = f"Drop it, with what stands on it, run this again, and put it back: {drop}"
        why = ""
        if kind not in "vm" or has_more:
            why = f"{says} has triggers, rules or defaults, or is not a view: it can't be made again as it is. {drop}"
        elif right == "not lent":
            why = (
                f"{says} belongs to {owner}, so {role} can't make it again. Run the SQL of `tidemark roles warehouse` "
                f"in the warehouse as its owner, which lets {role} have the views of dbt's role made again. {drop}"
            )
        elif right == "foreign":
            why = f"{says} belongs to {owner}, and not to {role} or {lender}: it can't be made again. {drop}"
        yield tuple(view), right == "lent", why


def _kind(kind: str) -> str:
    return "MATERIALIZED VIEW" if kind == "m" else "VIEW"


def _grants(connection: Connection, oid: int) -> list[Grant]:
    return connection.execute(_GRANTS, {"oid": oid}).fetchall()


def _role(name: str | None) -> sql.Composable:
    return sql.Identifier(name) if name else sql.SQL("PUBLIC")
