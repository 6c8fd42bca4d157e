"""Reads a source's tables from its catalogs and statistics, with a query for each kind of object. It judges nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.source import relations
from tidemark.inspect import foreign_keys
from tidemark.inspect.check import relations as checked
from tidemark.onboard.source_tables import SourceColumn, SourceTable, ValueList
from tidemark.onboard.triggers import Trigger, kept_columns
from tidemark.onboard.value_lists import value_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

    from singer_postgres.core.source.relations import Relation
    from tidemark.inspect.check.relations import Details

_TABLES = """
    select c.oid::bigint, pg_catalog.obj_description(c.oid, 'pg_class'),
        case c.relkind when 'p' then (
            select coalesce(sum(leaf.reltuples) filter (where leaf.reltuples >= 0), -1)
            from pg_catalog.pg_partition_tree(c.oid) tree join pg_catalog.pg_class leaf on leaf.oid = tree.relid
            where tree.isleaf
        ) else c.reltuples end,
        array(
            select n.nspname || '.' || p.relname from pg_catalog.pg_inherits i
            join pg_catalog.pg_class p on p.oid = i.inhparent join pg_catalog.pg_namespace n on n.oid = p.relnamespace
            where i.inhrelid = c.oid order by i.inhseqno
        )
    from pg_catalog.pg_class c where c.oid = any(%s::bigint[]::oid[])
"""
_COLUMNS = """
    select a.attrelid::bigint, a.attname, a.atttypid::bigint, t.typtype::text, a.attgenerated <> '',
        a.attidentity <> '', pg_catalog.pg_get_expr(d.adbin, d.adrelid),
        pg_catalog.col_description(a.attrelid, a.attnum)
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
    left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = any(%s::bigint[]::oid[]) and a.attnum > 0 and not a.attisdropped
"""
# Each type with the type below its domains. A domain's modifier counts where it is declared: in the last domain.
_TYPES = """
    with recursive below(type, oid, shown, depth) as (
        select oid, oid, null, 0 from pg_catalog.pg_type where oid = any(%s::bigint[]::oid[])
        union all
        select below.type, t.typbasetype, pg_catalog.format_type(t.typbasetype, t.typtypmod), below.depth + 1
        from below join pg_catalog.pg_type t on t.oid = below.oid where t.typtype = 'd'
    )
    select distinct on (below.type) below.type::bigint, below.shown, array(
        select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = below.oid order by e.enumsortorder
    ), array(
        select pg_catalog.pg_get_constraintdef(k.oid) from below domain
        join pg_catalog.pg_constraint k on k.contypid = domain.oid
        where domain.type = below.type and k.contype = 'c' and k.convalidated order by k.conname
    )
    from below order by below.type, below.depth desc
"""
_CHECKS = """
    select conrelid::bigint, pg_catalog.pg_get_constraintdef(oid) from pg_catalog.pg_constraint
    where contype = 'c' and convalidated and conrelid = any(%s::bigint[]::oid[]) and cardinality(conkey) = 1
    order by conrelid, conname
"""
_UNIQUE = """
    select i.indrelid::bigint, i.indisprimary, array(
        select a.attname::text from unnest(i.indkey::int2[]) with ordinality k(attnum, position)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where k.position <= i.indnkeyatts order by k.position
    )
    from pg_catalog.pg_index i
    where i.indrelid = any(%s::bigint[]::oid[]) and i.indisunique and i.indisvalid
        and i.indpred is null and i.indexprs is null
    order by i.indrelid, i.indexrelid
"""
# tgtype's bits: 1 row, 2 before, 16 update; enabled for ordinary sessions
_TRIGGERS = """
    select t.tgrelid::bigint, t.tgname, p.proname, l.lanname, p.prosrc, t.tgargs, t.tgqual is not null,
        t.tgattr::text <> ''
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_language l on l.oid = p.prolang
    where t.tgrelid = any(%s::bigint[]::oid[]) and not t.tgisinternal and t.tgenabled in ('O', 'A')
        and t.tgtype & 19 = 19
    order by t.tgrelid, t.tgname
"""
_STATISTICS = """
    select schemaname, tablename, attname, avg_width, n_distinct, inherited
    from pg_catalog.pg_stats where schemaname = any(%s)
"""


@dataclass(frozen=True)
class SourceCatalog:
    """What a source has.

    Attributes:
        tables: in the order of their names, without partitions.
        undescribed: relations that can't be described, each with the reason.
        role: the role that read them.
        has_log: the server writes a logical log (wal_level), from which LOG_BASED streams are read.
    """

    tables: tuple[SourceTable, ...]
    undescribed: tuple[str, ...]
    role: str
    has_log: bool = False


def read(connection: psycopg.Connection[Any], schemas: Sequence[str] | None = None) -> SourceCatalog:
    """Read all tables of some schemas. Call this in a transaction that project.connections.SNAPSHOT began.

    Args:
        schemas: None for all but the system's.
    """
    heads = relations.heads(connection, schemas or ())
    described, undescribed = relations.describe(connection, [head.oid for head in heads])
    details = checked.details(connection, described, lacks=False)
    oids = list(details)
    facts = _Facts(connection, oids, sorted({each.schema for each in described}))
    row = connection.execute("select current_user, current_setting('wal_level') = 'logical'").fetchone()
    return SourceCatalog(
        tuple(facts.table(relation, details[relation.oid]) for relation in described),
        tuple(f"{each.name} can't be described: {each.why}" for each in undescribed),
        role=row[0] if row else "",
        has_log=bool(row and row[1]),
    )


class _Facts:
    """The rows of all queries, by table."""

    def __init__(self, connection: psycopg.Connection[Any], oids: list[int], schemas: list[str]) -> None:
        def rows(query: str, parameter: list[Any] | None = None) -> list[tuple[Any, ...]]:
            found = connection.execute(query, [oids if parameter is None else parameter]).fetchall()
            return [tuple(map(_text, row)) for row in found] if is_ascii else found

        # Such a database may have any bytes in a comment or a function. The server would refuse them as UTF-8; without
        # a conversion they arrive as bytes.
        is_ascii = connection.info.parameter_status("server_encoding") == "SQL_ASCII"
        if is_ascii:
            connection.execute("set local client_encoding = 'SQL_ASCII'")

        self._tables = {row[0]: row[1:] for row in rows(_TABLES)}
        self._columns = {(row[0], row[1]): row[2:] for row in rows(_COLUMNS)}
        self._types = {row[0]: row[1:] for row in rows(_TYPES, sorted({row[0] for row in self._columns.values()}))}
        self._foreign_keys = _by_table(rows(foreign_keys.QUERY))
        self._checks = _by_table(rows(_CHECKS))
        self._unique = _by_table(rows(_UNIQUE))
        self._triggers = _by_table(rows(_TRIGGERS))
        self._statistics = {(*row[:3], row[5]): row[3:5] for row in rows(_STATISTICS, schemas)}
        if is_ascii:
            connection.execute("set local client_encoding = 'UTF8'")

    def table(self, relation: Relation, details: Details) -> SourceTable:
        comment, rows, parents = self._tables[relation.oid]
        unique = [(is_primary, tuple(names)) for is_primary, names in self._unique[relation.oid]]
        columns, value_lists = self._described_columns(relation, details)
        kept = self._kept(relation)
        return SourceTable(
            relation.schema,
            relation.name,
            relation.kind,
            columns,
            oid=relation.oid,
            rows=rows,
            # a table that was dropped meanwhile has no size
            bytes=sum(leaf.bytes or 0 for leaf in details.leaves),
            comment=comment,
            key=relation.key,
            has_primary_key=(True, relation.key) in unique,
            unique=tuple(dict.fromkeys(names for _, names in unique if names != relation.key)),
            foreign_keys=tuple(map(foreign_keys.ForeignKey.of_row, self._foreign_keys[relation.oid])),
            value_lists=value_lists,
            indexed=_indexed(relation, details),
            kept_by_trigger=kept[0],
            readable=details.usable and (details.readable or len(details.unreadable) < len(relation.columns)),
            hides_rows=details.hides_rows or any(leaf.hides_rows and leaf.readable for leaf in details.leaves),
            has_children=relation.inherited,
            schema_usable=details.usable,
            parents=tuple(parents),
            partitions=len(details.leaves) if relation.kind == "p" else 0,
            doubtful_triggers=kept[1],
            stamp_zones=kept[2],
        )

    def _described_columns(
        self, relation: Relation, details: Details
    ) -> tuple[tuple[SourceColumn, ...], tuple[ValueList, ...]]:
        unreadable = set(details.unreadable)
        columns = []
        lists = [value_list(definition) for (definition,) in self._checks[relation.oid]]
        for column in relation.columns:
            type_, kind, generated, identity, default, comment = self._columns[relation.oid, column.name]
            below, labels, checks = self._types[type_]
            lists += [value_list(definition, column.name) for definition in checks]
            inherited = relation.kind == "p" or relation.inherited
            width, distinct = self._statistics.get(
                (relation.schema, relation.name, column.name, inherited), (None, None)
            )
            columns.append(
                SourceColumn(
                    column.name,
                    column.declared,
                    below or column.declared,
                    kind,
                    enum_labels=tuple(labels),
                    not_null=column.not_null,
                    default=None if generated else default,
                    is_generated=generated,
                    is_identity=identity,
                    readable=column.name not in unreadable,
                    comment=comment,
                    average_bytes=width,
                    distinct=distinct,
                    warehouse_type=column.target_type.type,
                    instead_of=column.target_type.instead_of,
                    of_extension=column.target_type.extension,
                )
            )
        return tuple(columns), tuple(each for each in lists if each)

    def _kept(self, relation: Relation) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        """Return the columns that triggers keep, those that they may keep, and the zones that they name."""
        proven: dict[str, str] = {}
        doubtful: dict[str, str] = {}
        zones: dict[str, str] = {}
        for name, function, language, body, arguments, has_condition, only_columns in self._triggers[relation.oid]:
            words = tuple(str(_text(arguments)).split("\0")[:-1])
            found = kept_columns(Trigger(name, function, language, body, words, has_condition, only_columns))
            doubtful |= found.doubtful
            for column, zone in found.proven.items():
                proven[column] = name
                if zone:
                    zones[column] = zone
        if relation.inherited:
            # a trigger of this table doesn't fire for rows of the tables that inherit from it
            doubtful |= {column: f"trigger {name} does not cover inherited tables" for column, name in proven.items()}
            proven = {}
        return proven, {column: why for column, why in doubtful.items() if column not in proven}, zones


def _text(value: Any) -> Any:
    """Decode bytes, in arrays too. Those that are not valid UTF-8 are replaced."""
    if isinstance(value, list):
        return [_text(each) for each in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _by_table(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for table, *rest in rows:
        found[table].append(tuple(rest))
    return found


def _indexed(relation: Relation, details: Details) -> frozenset[str]:
    """Return the columns that begin a valid index of the table itself, or one of each of its partitions."""
    by_table: dict[int, set[str]] = defaultdict(set)
    for index in details.indexes:
        if index.valid:
            by_table[index.table].add(index.column)
    own = by_table[relation.oid]
    if relation.kind == "p" and details.leaves:
        own = own | set.intersection(*(by_table[leaf.oid] for leaf in details.leaves))
    return frozenset(own)
