"""The sequence that fills a column: its last value, and whether it was restarted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from singer_postgres.core.errors import ReplicationKeyError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


@dataclass(frozen=True)
class Sequence:
    """A sequence that fills a column.

    Attributes:
        filenode: the number of its file, which changes when the sequence is restarted.
        cache: how many values a session reserves at once.
        last: its last value; None if it has given out no value, or this role may not read it.
    """

    name: str
    filenode: int
    increment: int
    cache: int
    last: int | None


# Sequences of identity columns, and sequences that a default takes unchanged. A default that computes with a sequence
# doesn't fill the column with its values, and a sequence that the column merely owns may no longer fill it.
_FILLING = """
    select seqrelid::regclass::text, pg_relation_filenode(seqrelid)::bigint, seqincrement, seqcache,
        case when has_sequence_privilege(seqrelid, 'select, usage') and relpersistence = 'p'
            then pg_sequence_last_value(seqrelid) end
    from (
        select objid as sequence from pg_catalog.pg_depend
        where classid = 'pg_catalog.pg_class'::regclass and refclassid = 'pg_catalog.pg_class'::regclass
            and refobjid = %(table)s::bigint::oid and deptype = 'i'
            and refobjsubid = (select attnum from pg_catalog.pg_attribute
                where attrelid = %(table)s::bigint::oid and attname = %(column)s)
        union
        select d.refobjid from pg_catalog.pg_attrdef a
        join pg_catalog.pg_attribute on attrelid = adrelid and attnum = adnum
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_attrdef'::regclass and d.objid = a.oid
            and d.refclassid = 'pg_catalog.pg_class'::regclass
        where adrelid = %(table)s::bigint::oid and attname = %(column)s
            and pg_get_expr(adbin, adrelid) like 'nextval(''%%''::regclass)'
    ) filling
    join pg_catalog.pg_sequence on seqrelid = sequence join pg_catalog.pg_class c on c.oid = seqrelid
"""


def filling(connection: Connection, table: int, column: str) -> Sequence | None:
    """Return the sequence that fills a column of the table with oid `table`; None if there is no such sequence."""
    with connection.cursor() as cursor:
        cursor.execute(_FILLING, {"table": table, "column": column})
        row = cursor.fetchone()
    return None if row is None else Sequence(*row)


def refuse_down(sequence: Sequence, stream: str, column: str) -> None:
    """Refuse a replication key whose sequence counts down: new rows would come below the bookmark.

    Raises:
        SingerPostgresError: the sequence counts down.
    """
    if sequence.increment < 0:
        msg = (
            f"{sequence.name}, which fills replication key {column} of {stream}, counts down, so new rows come below "
            "the bookmark: choose a timestamp, or read the stream whole (replication-method: FULL_TABLE)."
        )
        raise ReplicationKeyError(msg)
