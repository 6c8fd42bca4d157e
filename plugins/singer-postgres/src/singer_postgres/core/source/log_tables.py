"""What the log tells of the source's tables: the slot, the publication, and each table's identity in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from singer_postgres.core.errors import BusyError, LogUnfitError, SlotGoneError, SlotMissingError
from singer_postgres.core.source import row_filters
from singer_postgres.core.sql_compat import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.relations import Relation

# what the server takes as a slot's name
_SLOT_CHARACTERS, _SLOT_LENGTH = re.compile(r"[^a-z0-9_]"), 63
_SLOT = """
    select plugin, database = current_database(), active_pid, confirmed_flush_lsn::text,
        coalesce(wal_status, 'reserved'), pg_catalog.current_database()
    from pg_catalog.pg_replication_slots where slot_name = %s
"""
# A table is published by its name, with its schema, or with all tables. A transaction that was open then may have
# written rows that the log doesn't tell of: xmin is the transaction that published it.
_PUBLISHED = """
    select coalesce(rel.xmin, namespace.xmin, publication.xmin)::text, publication.pubviaroot,
        publication.pubinsert and publication.pubupdate and publication.pubdelete and publication.pubtruncate,
        -- those of a table have no effect if its schema is published
        case when namespace.oid is null then pg_catalog.pg_get_expr(rel.prqual, rel.prrelid) end,
        case when namespace.oid is null and rel.prattrs is not null then array(
            select attname::text from pg_catalog.pg_attribute
            where attrelid = rel.prrelid and attnum = any(rel.prattrs::int2[]) order by attnum
        ) end
    from pg_catalog.pg_publication publication
    left join pg_catalog.pg_publication_rel rel on rel.prpubid = publication.oid and rel.prrelid = %(oid)s::bigint::oid
    left join pg_catalog.pg_publication_namespace namespace on namespace.pnpubid = publication.oid
        and namespace.pnnspid = (select relnamespace from pg_catalog.pg_class where oid = %(oid)s::bigint::oid)
    where publication.pubname = %(publication)s
        and (publication.puballtables or rel.oid is not null or namespace.oid is not null)
"""
_IDENTITY = """
    select relreplident::text, (
        select array_agg(a.attname::text) from pg_catalog.pg_index i
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey::int2[])
        where i.indrelid = c.oid and i.indisvalid
            and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
    )
    from pg_catalog.pg_class c where c.oid = %(oid)s::bigint::oid
        or c.oid in (select relid from pg_catalog.pg_partition_tree(%(oid)s::bigint::oid))
"""
# a generated column that makes updates fail, from version 18 on
_NOT_IN_IDENTITY = """
    select a.attname::text from pg_catalog.pg_attribute a
    where a.attrelid = %(oid)s::bigint::oid and a.attnum > 0 and not a.attisdropped and a.attgenerated <> ''
        and pg_catalog.current_setting('server_version_num')::int >= 180000
        and not (a.attgenerated = 's' and exists (
            select from pg_catalog.pg_publication p
            where p.pubname = %(publication)s and to_jsonb(p) ->> 'pubgencols' = 's'
        ))
    limit 1
"""


@dataclass(frozen=True)
class Slot:
    """A replication slot that can be streamed.

    Attributes:
        active_pid: the session that streams it now; None if none does.
        confirmed: the position that was last confirmed, from which it will be streamed.
    """

    name: str
    active_pid: int | None
    confirmed: str


def name_of(tap: str) -> str:
    """Return the usual name of a tap's slot and publication.

    >>> name_of("tap-postgres--crm")
    'tidemark_tap_postgres__crm'
    """
    return _SLOT_CHARACTERS.sub("_", f"tidemark_{tap.lower()}")[:_SLOT_LENGTH]


def slot(connection: Connection, name: str) -> Slot:
    """Return the slot.

    Raises:
        SlotMissingError: there is no such slot, or it can't be used.
        BusyError: it is still being made.
    """
    with connection.cursor() as cursor:
        cursor.execute("select pg_catalog.pg_is_in_recovery()")
        if cursor.fetchone() == (True,):
            msg = "The source is a standby, and LOG_BASED streams follow the log of a primary: set its host."
            raise SlotMissingError(msg)
        cursor.execute(_SLOT, [name])
        row = cursor.fetchone()
    if row is None:
        msg = (
            f"The source has no replication slot {name}, from which LOG_BASED streams are read: `tidemark slots "
            "create` makes it; if streams have followed it before, `tidemark slots repair` does, and brings them back."
        )
        raise SlotGoneError(msg)
    plugin, is_here, active_pid, confirmed, status, database = row
    if plugin != "pgoutput" or not is_here:
        what = f"of the plugin {plugin}" if is_here else "of another database"
        msg = f"The replication slot {name} is {what}, not of pgoutput in {database}: drop it, or set slot_name."
        raise SlotMissingError(msg)
    if status == "lost":
        msg = (
            f"The source has removed WAL that the replication slot {name} needed (max_slot_wal_keep_size): "
            "`tidemark slots repair` makes it again, and compares its streams with the source."
        )
        raise SlotGoneError(msg)
    if confirmed is None:
        msg = (
            f"The replication slot {name} is being made (pid {active_pid} in the source), which waits for the end of "
            "all transactions that have written something. End those; or end that by SELECT "
            f"pg_terminate_backend({active_pid}); and make it again."
        )
        raise BusyError(msg)
    return Slot(name, active_pid, confirmed)


def published_by(  # noqa: PLR0913 - each argument has a name
    connection: Connection,
    publication: str,
    relation: Relation,
    key: Sequence[str],
    *,
    columns: Iterable[str],
    where: Sequence[str],
) -> str:
    """Return the id of the transaction that published a table.

    Args:
        columns: the stream's columns.
        where: the stream's conditions.

    Raises:
        SingerPostgresError: the publication does not exist or lacks the table, or the table's changes can't be
            followed.
    """
    if relation.kind not in "rp":
        msg = f"{relation} is no table, so it has no changes in the log: read it with FULL_TABLE or INCREMENTAL."
        raise LogUnfitError(msg)
    # before any advice to publish it: UPDATE would fail then
    require_identity(connection, publication, relation, key)
    with connection.cursor() as cursor:
        cursor.execute("select from pg_catalog.pg_publication where pubname = %s", [publication])
        if cursor.fetchone() is None:
            msg = f"The source has no publication {publication}, by which LOG_BASED streams are read."
            raise SlotMissingError(msg)
        cursor.execute(_PUBLISHED, {"oid": relation.oid, "publication": publication})
        row = cursor.fetchone()
        add = f"ALTER PUBLICATION {quoted(publication)} ADD TABLE {quoted(relation.schema, relation.name)};"
        if row is None:
            msg = f"{relation} is not in the publication {publication}: `tidemark slots create` adds it, or: {add}"
            raise LogUnfitError(msg)
        xid, via_root, is_complete, filter_, listed = row
        if not is_complete or (relation.kind == "p" and not via_root):
            options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
            alter = f"ALTER PUBLICATION {quoted(publication)} SET ({options});"
            msg = f"The publication {publication} leaves changes out: {alter}"
            raise LogUnfitError(msg)
    found = identities(connection, relation)
    wanted = row_filters.condition(where)
    if wanted is not None:
        row_filters.refuse(connection, relation, wanted, identity=identity_columns(found))
    if not row_filters.equal(connection, relation, wanted, filter_):
        msg = (
            f"The stream has {_rows(wanted)} (where), and the publication {publication} has {_rows(filter_)} of "
            f"{relation}: `tidemark slots create` brings it up to date, and then `tidemark slots repair` the rows."
        )
        raise LogUnfitError(msg)
    if listed is not None:
        unsent = not_sent(connection, publication, relation)
        _refuse_list(relation, publication, listed, {*columns, *key} - {*unsent}, found)
    return str(xid)


def require_identity(connection: Connection, publication: str, relation: Relation, key: Sequence[str]) -> None:
    """Check that the log identifies a table's rows. Where it can't, publishing the table makes its UPDATEs fail.

    Args:
        publication: its name; it need not exist.

    Raises:
        LogUnfitError: the log doesn't identify rows, or not by the stream's key.
    """
    found = identities(connection, relation)
    _refuse_identity(relation, key, found)
    with connection.cursor() as cursor:
        if any(identity == "f" for identity, _ in found):
            cursor.execute(_NOT_IN_IDENTITY, {"oid": relation.oid, "publication": publication})
            if row := cursor.fetchone():
                msg = (
                    f"The REPLICA IDENTITY of {relation} is FULL, and the publication {publication} lacks its "
                    f"generated column {row[0]}, so UPDATE and DELETE fail in the source: give the table another "
                    "identity, or have stored columns published (publish_generated_columns = stored)."
                )
                raise LogUnfitError(msg)


def identities(connection: Connection, relation: Relation) -> list[tuple[str, list[str] | None]]:
    """Return REPLICA IDENTITY and its columns of a table and each of its partitions."""
    with connection.cursor() as cursor:
        cursor.execute(_IDENTITY, {"oid": relation.oid})
        return list(cursor.fetchall())


def identity_columns(found: Sequence[tuple[str, list[str] | None]]) -> set[str] | None:
    """Return the columns that the log has of each row that was changed; None for all."""
    parts = [set(columns or ()) for identity, columns in found if identity != "f"]
    return set.intersection(*parts) if parts else None


def _rows(condition: str | None) -> str:
    return "all rows" if condition is None else f"those with {condition}"


def _refuse_list(
    relation: Relation,
    publication: str,
    listed: Sequence[str],
    wanted: set[str],
    found: Sequence[tuple[str, list[str] | None]],
) -> None:
    """Refuse a list of columns that lacks some of the stream, or that makes UPDATE fail in the source."""
    what = f"The publication {publication} has only the columns {', '.join(listed)} of {relation}"
    if missing := sorted(wanted - {*listed}):
        msg = f"{what}: publish {', '.join(missing)} too, or deselect what is missing."
        raise LogUnfitError(msg)
    identity = identity_columns(found)
    if identity is None or any(kind == "f" for kind, _ in found) or not identity <= {*listed}:
        which = "all" if identity is None else ", ".join(sorted(identity))
        msg = f"{what}, and rows are identified by {which}, so UPDATE and DELETE fail in the source: publish all."
        raise LogUnfitError(msg)


def _refuse_identity(
    relation: Relation, key: Sequence[str], identities: Sequence[tuple[str, list[str] | None]]
) -> None:
    name = quoted(relation.schema, relation.name)
    if not key:
        msg = f"{relation} has no primary key, so changes in the log can't be matched with rows: give it one."
        raise LogUnfitError(msg)
    for identity, columns in identities:
        if identity != "f" and not set(key) <= set(columns or ()):
            msg = (
                f"The log identifies rows of {relation} by {', '.join(columns or ()) or 'nothing'}, and the stream by "
                f"{', '.join(key)}: ALTER TABLE {name} REPLICA IDENTITY DEFAULT; or, without a primary key, "
                "REPLICA IDENTITY FULL."
            )
            raise LogUnfitError(msg)


_NOT_SENT = """
    select array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
    join pg_catalog.pg_publication p on p.pubname = %(publication)s
    where a.attrelid = %(oid)s::bigint::oid and a.attnum > 0 and not a.attisdropped and a.attgenerated <> ''
        -- stored ones from version 18 on, if the publication says so, or lists them
        and not (a.attgenerated = 's' and coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's')
        and not exists (
            select from pg_catalog.pg_publication_rel r where r.prpubid = p.oid and r.prrelid = a.attrelid
                and a.attnum = any(r.prattrs::int2[])
        )
"""


def not_sent(connection: Connection, publication: str, relation: Relation) -> list[str]:
    """Return the generated columns whose values are not in the log."""
    with connection.cursor() as cursor:
        cursor.execute(_NOT_SENT, {"publication": publication, "oid": relation.oid})
        row = cursor.fetchone()
    return (row and row[0]) or []


def generated(connection: Connection, table_oid: int) -> frozenset[int]:
    """Return the attnums of a table's generated columns."""
    with connection.cursor() as cursor:
        cursor.execute(
            "select attnum from pg_catalog.pg_attribute "
            "where attrelid = %s::bigint::oid and attnum > 0 and attgenerated <> ''",
            [table_oid],
        )
        return frozenset(attnum for (attnum,) in cursor.fetchall())


def flush_lsn(connection: Connection) -> str:
    """Return the position up to which the source's log is on its disk."""
    # the position of inserts may be ahead, after an asynchronous commit
    with connection.cursor() as cursor:
        cursor.execute("select pg_catalog.pg_current_wal_flush_lsn()::text")
        row = cursor.fetchone()
    assert row
    return str(row[0])


def hasten_flush(connection: Connection) -> None:
    """Have the server write its log to its disk soon after this transaction's commit. A standby has it all.

    A snapshot may see what is not on the disk yet, after an asynchronous commit. And the last part of the log is not
    written before the next commit, or for many seconds, if it comes of reading alone: a page that was pruned in a
    transaction which was rolled back. A commit that changes nothing has the WAL writer write all before it.
    Source: RecordTransactionAbort and XLogBackgroundFlush of PostgreSQL.
    """
    with connection.cursor() as cursor:
        # assigned to a transaction, its number makes a commit record
        cursor.execute("select pg_catalog.pg_current_xact_id() where not pg_catalog.pg_is_in_recovery()")
