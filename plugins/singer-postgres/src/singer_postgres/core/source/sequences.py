"""The sequence that fills a column: how far it has got, and whether it was begun again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SingerPostgresError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


@dataclass(frozen=True)
class Sequence:
    """A sequence that fills a column.

    Attributes:
        filenode: the number of its file, which a restart changes.
        cache: how many values a session takes at once.
        last: the last value that it handed out; None if it handed out no value, or this role can't see it.
    """

    name: str
    filenode: int
    increment: int
    cache: int
    last: int | None


# of an identity column, or what the default is: one that a default computes with fills nothing by itself, and one that
# the column merely owns may fill it no more
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
    """Return the sequence that fills a column of a table, which is an oid; None if there is no such sequence."""
    with connection.cursor() as cursor:
        cursor.execute(_FILLING, {"table": table, "column": column})
        row = cursor.fetchone()
    return None if row is None else Sequence(*row)


def refuse_down(sequence: Sequence, stream: str, column: str) -> None:
    """Raise if new rows of a stream come below its bookmark, as what fills its replication key counts down.

    Raises:
        SingerPostgresError: it does.
    """
    if sequence.increment < 0:
        msg = (
            f"{sequence.name}, which fills replication key {column} of {stream}, counts down, so new rows come below "
            "the bookmark: take a time stamp, or read the stream whole (replication-method: FULL_TABLE)."
        )
        raise SingerPostgresError(msg)
