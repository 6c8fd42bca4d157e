"""Finds what else blocks a column's type change (functions, types, policies), with advice on each object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse import change_triggers

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]

# objects other than views that block dropping a view, or block changing the type of a column of the table
_HOLDERS = f"""
    with recursive row_types (oid) as (
        select reltype from pg_catalog.pg_class where oid = %(table)s::regclass
        union
        select coalesce(c.reltype, d.objid)
        from row_types join pg_catalog.pg_depend d on refclassid = 'pg_catalog.pg_type'::regclass
            and refobjid = row_types.oid
        left join pg_catalog.pg_class c on d.classid = 'pg_catalog.pg_class'::regclass and c.oid = d.objid
            and c.relkind = 'c'
        where d.classid = 'pg_catalog.pg_type'::regclass or c.oid is not null
    ), views as (
        select c.oid, reltype, typarray
        from pg_catalog.pg_class c join pg_catalog.pg_type t on t.oid = reltype
        where c.oid = any(%(views)s::oid[])
    ), holders as (
        select views.oid as held, d.classid, d.objid, d.objsubid
        from views join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass
            and d.refobjid = views.oid
            or d.refclassid = 'pg_catalog.pg_type'::regclass and d.refobjid in (reltype, typarray)
        where d.deptype = 'n' and not exists (
            select from pg_catalog.pg_class c
            where d.classid = 'pg_catalog.pg_class'::regclass and c.oid = d.objid and relkind in ('v', 'm')
        )
        union
        select d.refobjid, d.classid, d.objid, d.objsubid
        from pg_catalog.pg_depend d join pg_catalog.pg_attribute on attrelid = d.refobjid and attnum = d.refobjsubid
        where d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = %(table)s::regclass
            and attname = coalesce(%(column)s, attname)
            -- these are set aside
            and not (d.classid = 'pg_catalog.pg_trigger'::regclass
                and d.objid in (select oid from pg_catalog.pg_trigger where {change_triggers.IS_OURS}))
            and (d.classid in ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_trigger'::regclass,
                    'pg_catalog.pg_policy'::regclass, 'pg_catalog.pg_publication_rel'::regclass)
                or exists (select from pg_catalog.pg_attrdef a where d.classid = 'pg_catalog.pg_attrdef'::regclass
                    and a.oid = d.objid and adnum <> d.refobjsubid))
        union
        select %(table)s::regclass, d.classid, d.objid, d.objsubid
        from row_types join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_type'::regclass
            and d.refobjid = row_types.oid and d.classid = 'pg_catalog.pg_class'::regclass
        join pg_catalog.pg_class c on c.oid = d.objid and c.relkind in ('r', 'p', 'm')
    )
    select held::regclass::text, address.type, address.object_names, address.object_args, object.identity, case
        when classid = 'pg_catalog.pg_attrdef'::regclass
            then (select attgenerated::text from pg_catalog.pg_attrdef a join pg_catalog.pg_attribute
                on attrelid = adrelid and attnum = adnum where a.oid = objid)
        when classid = 'pg_catalog.pg_proc'::regclass and exists (select from pg_catalog.pg_depend
            where refclassid = named.classid and refobjid = named.objid and deptype = 'n') then 'CASCADE'
        else '' end
    from (
        select holders.held, coalesce(as_view.classid, holders.classid) as classid,
            coalesce(as_view.objid, holders.objid) as objid, objsubid
        from holders left join (
            select oid, 'pg_catalog.pg_class'::regclass::oid as classid, ev_class as objid from pg_catalog.pg_rewrite
            where rulename = '_RETURN'
        ) as_view on holders.classid = 'pg_catalog.pg_rewrite'::regclass and as_view.oid = holders.objid
    ) named
    cross join lateral pg_catalog.pg_identify_object_as_address(classid, objid, objsubid) address
    cross join lateral pg_catalog.pg_identify_object(classid, objid, objsubid) object
    where not (classid = 'pg_catalog.pg_class'::regclass and objid = any(%(views)s::oid[]))
    group by 1, 2, 3, 4, 5, 6
    order by 1, 2, 5
"""  # noqa: S608 - fixed text


def obstacles(connection: Connection, table: sql.Identifier, column: str | None, views: list[int]) -> list[str]:
    """Return advice on each object that blocks dropping these views of `table`, or changing its column's type."""
    parameters = {"table": table.as_string(connection), "column": column, "views": views}
    return [
        f"{kind} {identity} depends on {held}, which therefore can't be altered. Remove the dependency, run this "
        f"again, and restore it. To remove it: {_release(kind, names, arguments, identity, more)};"
        for held, kind, names, arguments, identity, more in connection.execute(_HOLDERS, parameters)
    ]


def _release(kind: str, names: list[str], arguments: list[str], identity: str, more: str) -> str:
    """Return the statement that removes an object's dependency."""
    relation, last = (sql.Identifier(*part).as_string() if part else "" for part in (names[:-1], names[-1:]))
    column = f"ALTER TABLE {relation} ALTER COLUMN {last}"
    publication = sql.Identifier(*arguments).as_string() if kind == "publication relation" else ""
    special = {
        "table column": f"{column} TYPE text USING {last}::text",
        "composite type column": f"ALTER TYPE {relation} ALTER ATTRIBUTE {last} TYPE text CASCADE",
        "default value": {"": f"{column} DROP DEFAULT", "s": f"{column} DROP EXPRESSION"}.get(
            more, f"ALTER TABLE {relation} DROP COLUMN {last}"
        ),
        "table constraint": f"ALTER TABLE {relation} DROP CONSTRAINT {last}",
        "materialized view column": f"DROP MATERIALIZED VIEW {relation}",
        "publication relation": f"ALTER PUBLICATION {publication} DROP TABLE {relation}.{last}",
    }
    return special.get(kind, f"DROP {kind.upper()} {identity}{' CASCADE' if more == 'CASCADE' else ''}")
