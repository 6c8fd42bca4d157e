"""Checks a stream for what would stop it, slow it down or make its result doubtful. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_postgres.core.source.relations import KINDS
from singer_postgres.core.source.replication_key import is_instant, is_time
from singer_postgres.core.warehouse.metadata_columns import METADATA
from singer_postgres.core.wire import OWN
from tidemark.inspect.check.finding import Finding, Level, statement
from tidemark.inspect.check.streams import method_findings
from tidemark.inspect.column_names import is_business_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from singer_postgres.core.source.relations import Column
    from tidemark.inspect.check.relations import Details
    from tidemark.inspect.check.streams import Configuration, Stream

# a scan of a smaller table takes no noticeable time
_LARGE_BYTES = 64 * 2**20


def findings(
    stream: Stream, details: Details, configuration: Configuration, role: str, has_order: Callable[[str], bool]
) -> list[Finding]:
    """Return all findings about a stream; an empty list if it is in order.

    Args:
        role: the role that the tap connects as.
        has_order: tells whether values of a type can be sorted.
    """
    return [
        *method_findings(stream),
        *_names(stream),
        *_access(stream, details, role),
        *_kind(stream, details, role),
        *_key(stream, details, configuration),
        *_deletes(stream, configuration),
        *(
            _replication_key(stream, details, configuration, has_order)
            if stream.incremental and stream.replication_key
            else ()
        ),
        *_columns(stream, details, configuration),
    ]


def _finding(stream: Stream, level: Level, what: str, *fix: str) -> Finding:
    return Finding("source", level, what, tuple(fix), stream.name)


def _deletes(stream: Stream, configuration: Configuration) -> Iterator[Finding]:
    if configuration.hard_delete and stream.method in {None, "FULL_TABLE"}:
        what = (
            "is read whole, and hard_delete is true: the target deletes rows that the source no longer has, and "
            "incremental models with SQL of their own keep them until a full refresh (incremental_by_key does not); "
            "set "
            "hard_delete: false in load/loaders.meltano.yml, which only marks them as deleted"
        )
        yield _finding(stream, Level.warning, what)


def _access(stream: Stream, details: Details, role: str) -> Iterator[Finding]:
    path = stream.relation.path
    if not details.usable:
        grant = statement("GRANT USAGE ON SCHEMA {schema} TO {role}", schema=path[0], role=role)
        yield _finding(stream, Level.error, f"{role} may not use schema {path[0]}", grant)
    if not details.readable:
        key = stream.key or details.key
        wanted = {*key, *(column.name for column in stream.columns), stream.replication_key}
        read = [name for name in stream.relation.columns if name in wanted]
        closed = [name for name in read if name in details.unreadable]
        grant = statement("GRANT SELECT ON {table} TO {role}", table=path, role=role)
        if len(details.unreadable) == len(stream.relation.columns):
            yield _finding(stream, Level.error, f"{role} has no SELECT on it", grant)
        elif closed:
            columns = statement("GRANT SELECT ({columns}) ON {table} TO {role}", columns=closed, table=path, role=role)
            what = f"{role} may not read {', '.join(closed)} of it; grant that, or deselect these columns"
            yield _finding(stream, Level.error, what, columns)
        else:
            what = f"{role} has SELECT on single columns only: it is read in one piece, not in parallel ranges"
            yield _finding(stream, Level.note, what, grant)
    if details.hides_rows or any(leaf.hides_rows and leaf.readable for leaf in details.leaves):
        fix = [statement("ALTER ROLE {role} BYPASSRLS", role=role)]
        if details.owned:
            fix = [statement("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY", table=path)]
        yield _finding(stream, Level.error, f"row-level security may hide rows of it from {role}", *fix)


def _kind(stream: Stream, details: Details, role: str) -> Iterator[Finding]:
    kind = stream.relation.kind
    if kind in "vmf":
        yield _finding(stream, Level.note, f"is a {KINDS[kind]}: it is read in one piece, not in parallel ranges")
    elif details.inherited:
        what = "other tables inherit from it: it is read with their rows, in one piece, and its key may repeat"
        yield _finding(stream, Level.note, what)
    elif kind == "p":
        closed = [leaf for leaf in details.leaves if not leaf.readable]
        foreign = [leaf for leaf in details.leaves if leaf.kind != "r"]
        count = f"{len(details.leaves)} partition{'s' * (len(details.leaves) != 1)}"
        if foreign:
            leaf = foreign[0]
            what = f"is partitioned, and {leaf.path[1]} is a {KINDS[leaf.kind]}: it is read in one piece"
            yield _finding(stream, Level.note, what)
        elif closed:
            grants = [statement("GRANT SELECT ON {table} TO {role}", table=leaf.path, role=role) for leaf in closed]
            what = f"is partitioned, and {role} can't read {len(closed)} of {count}: it is read in one piece"
            yield _finding(stream, Level.note, what, *grants)
        else:
            yield _finding(stream, Level.note, f"is partitioned: each partition is read in ranges ({count})")


def _key(stream: Stream, details: Details, configuration: Configuration) -> Iterator[Finding]:
    relation = stream.relation
    key = stream.key or details.key
    if missing := [name for name in key if name not in relation.columns]:
        yield _finding(stream, Level.error, f"table-key-properties name {', '.join(missing)}, which it does not have")
    if not stream.incremental or key:
        return
    if stream.name in configuration.allow_duplicates:
        what = "has no primary key; it is in allow_duplicates, so rows that are read again appear twice"
        yield _finding(stream, Level.note, what)
        return
    lack = details.lack
    what = "is INCREMENTAL and has no primary key, so rows that are read again can't be told from new ones"
    if lack.why:
        what += f": {lack.why}"
    fix = lack.statements
    if lack.declared:
        what += "; name the columns that identify a row in `metadata` (table-key-properties: [COLUMN])"
    else:
        what += "; give it one"
    what += ", or read it whole (replication-method: FULL_TABLE)"
    if not (lack.declared or fix):
        if relation.kind == "p":
            what += ". The key of a partitioned table must contain the partitioning columns"
        elif "id" in relation.columns:
            fix = (statement("ALTER TABLE {table} ADD PRIMARY KEY ({column})", table=relation.path, column="id"),)
        else:
            what += ". If no column will do, add the one below, which rewrites the table"
            template = "ALTER TABLE {table} ADD COLUMN {column} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
            fix = (statement(template, table=relation.path, column="id"),)
    yield _finding(stream, Level.error, what, *fix)


def _replication_key(
    stream: Stream, details: Details, configuration: Configuration, has_order: Callable[[str], bool]
) -> Iterator[Finding]:
    column = stream.relation.columns.get(stream.replication_key or "")
    if column is None:
        times = [each.name for each in stream.relation.columns.values() if each.declared.startswith("timestamp")]
        hint = f"; its timestamps are {', '.join(times)}" if times else "; without a suitable column, read it whole"
        what = f"has no column {stream.replication_key}, its replication key{hint}"
        yield _finding(stream, Level.error, what)
        return
    if not has_order(column.declared):
        what = f"replication key {column.name} is of type {column.declared}, whose values have no order"
        advice = "choose a timestamp, or read the stream whole (replication-method: FULL_TABLE)"
        yield _finding(stream, Level.error, f"{what}: {advice}")
        return
    if configuration.start_date and not is_time(column):
        what = f"start_date does not limit it, as its replication key {column.name} is of type {column.declared}"
        yield _finding(stream, Level.warning, f"{what}, not a time; limit it with `where`")
    if not is_time(column):
        what = f"replication key {column.name} is of type {column.declared}, not a time"
        yield _finding(stream, Level.note, f"{what}: a row that changes but keeps its value is not read again")
    elif not is_instant(column) and not configuration.timestamp_timezone:
        what = (
            f"replication key {column.name} has no time zone (it is of type {column.declared}), so each run reads the "
            "last 12 hours again: set timestamp_timezone if all writers use the same zone"
        )
        yield _finding(stream, Level.note, what)
    if is_time(column) and is_business_date(column.name):
        what = (
            f"replication key {column.name} sounds like a date of the business: a row that changes later without a new "
            "date is missed. Choose a column that every change moves, or read it whole (replication-method: FULL_TABLE)"
        )
        yield _finding(stream, Level.warning, what)
    if not column.not_null and stream.relation.kind in "rpf":
        what = f"replication key {column.name} can be null; such rows are read again at every run"
        fix = statement(
            "ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL", table=stream.relation.path, column=column.name
        )
        yield _finding(stream, Level.note, what, fix)
    if stream.relation.kind in "rpm":
        yield from _index(stream, details, column)


def _index(stream: Stream, details: Details, column: Column) -> Iterator[Finding]:
    led = {index.table for index in details.indexes if index.column == column.name and index.valid}
    bare = [leaf for leaf in details.leaves if leaf.oid not in led and leaf.kind in "rm"]
    if stream.relation.oid in led or not bare:
        return
    size = sum(leaf.bytes for leaf in bare)
    level = Level.warning if size >= _LARGE_BYTES else Level.note
    what = f"no index begins with replication key {column.name}, so every run reads all of it ({_shown(size)})"
    path = stream.relation.path
    broken = [index for index in details.indexes if index.column == column.name and not index.valid]
    if broken:
        what = f"index {broken[0].path[1]} on {column.name} is invalid, or still being built ({_shown(size)})"
        # a partitioned table's index is invalid until each partition has its part
        if stream.relation.kind != "p":
            fix = statement("REINDEX INDEX CONCURRENTLY {index}", index=broken[0].path)
            yield _finding(stream, level, what, fix)
            return
    if stream.relation.kind == "p":
        # a partitioned table can't have CONCURRENTLY, but its partitions can
        fixes = [
            statement("CREATE INDEX CONCURRENTLY ON {table} ({column})", table=leaf.path, column=column.name)
            for leaf in bare
        ]
        yield _finding(
            stream, level, what, *fixes, statement("CREATE INDEX ON {table} ({column})", table=path, column=column.name)
        )
        return
    yield _finding(
        stream,
        level,
        what,
        statement("CREATE INDEX CONCURRENTLY ON {table} ({column})", table=path, column=column.name),
    )


def _names(stream: Stream) -> Iterator[Finding]:
    name = stream.relation.name
    if name.startswith(OWN):
        what = f"names that begin with {OWN} are reserved for the warehouse's own tables"
        yield _finding(stream, Level.error, f"{what}: deselect it, or rename it in a view and select that")
    if ours := [column.name for column in stream.columns if column.name in METADATA or column.name.startswith(OWN)]:
        what = f"has a column {', '.join(ours)}, a name of the warehouse's own columns"
        yield _finding(stream, Level.error, f"{what}: deselect it, or rename it in a view and select that")


def _columns(stream: Stream, details: Details, configuration: Configuration) -> Iterator[Finding]:
    key = stream.key or details.key
    read = {column.name: column for column in stream.columns}
    # the tap reads the key's columns even if they are not selected
    read |= {name: stream.relation.columns[name] for name in key if name in stream.relation.columns}
    masks = configuration.masks.get(stream.name) or {}
    plain = [column for column in read.values() if column.name not in masks]
    for column in plain:
        if column.target_type.type is None:
            what = f"column {column.name} is of type {column.declared}, which COPY can write and nothing can read"
            # a dot would end the stream's name; a question mark matches any character
            pattern = f"!{stream.name.replace('.', '?')}.{column.name.replace('.', '?')}"
            yield _finding(stream, Level.error, f'{what}; deselect it: add "{pattern}" to `select`')
    changed = [column for column in plain if column.target_type.type and column.target_type.instead_of]
    if changed:
        each = "; ".join(
            f"{column.name} ({column.target_type.instead_of}) as {column.target_type.type}" for column in changed
        )
        yield _finding(stream, Level.note, f"gets another type in the warehouse: {each}")


def _shown(size: int) -> str:
    """Return a number of bytes with a unit."""
    number, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:  # noqa: PLR2004
            break
        number, unit = number / 1024, larger
    return f"{number:,.0f} {unit}"
