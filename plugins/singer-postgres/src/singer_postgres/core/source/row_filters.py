"""Conditions of LOG_BASED streams (where) as row filters of a publication, by which the server leaves changes out.

The server turns an UPDATE that leaves the condition into a DELETE, and one that enters it into an INSERT. Conditions
are compared as the planner has them, because a publication stores its own form of what it was given. That needs no
right but SELECT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import LogUnfitError, one_line
from singer_postgres.core.sql_compat import Error, quoted, sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.relations import Relation

_UNDEFINED_COLUMN, _NOT_PERMITTED = "42703", "42501"


def condition(where: Sequence[str]) -> str | None:
    """Return one condition for several; None if there is none.

    >>> condition(["a = 1", "b = 2"])
    '(a = 1) AND (b = 2)'
    """
    return " AND ".join(f"({each}\n)" if "--" in each else f"({each})" for each in where) or None


def refuse(connection: Connection, relation: Relation, where: str, *, identity: Iterable[str] | None) -> None:
    """Refuse a condition that the server would not apply to the log, or that would break UPDATE in the source.

    Args:
        identity: the columns of each changed row that the log has; None for all.

    Raises:
        LogUnfitError: the condition can't be a row filter.
    """
    what = f"The condition (where) of {relation}"
    columns = [column.name for column in relation.columns]
    try:
        plan = _explain(connection, relation, where)
    except Error as error:
        if _code(error) == _NOT_PERMITTED:
            raise
        msg = f"{what} is not valid: {one_line(error)}; correct it."
        raise LogUnfitError(msg) from error
    if _has_subquery(plan[0]["Plan"]):
        msg = f"{what} has a subquery, which the log can't apply: leave it out, or make the stream INCREMENTAL."
        raise LogUnfitError(msg)
    if _takes(connection, relation, where, columns if identity is None else list(identity)):
        return
    if not _takes(connection, relation, where, columns):
        msg = (
            f"{what} uses a system column, or names a column with its schema, which the log can't apply: correct it, "
            "or make the stream INCREMENTAL."
        )
        raise LogUnfitError(msg)
    used = [name for name in columns if not _takes(connection, relation, where, [c for c in columns if c != name])]
    outside = ", ".join(sorted(set(used) - set(identity or ())))
    msg = (
        f"{what} uses {outside}, which the log does not have for each change, so UPDATE and DELETE would fail in the "
        f"source: ALTER TABLE {quoted(relation.schema, relation.name)} REPLICA IDENTITY FULL; or make the stream "
        "INCREMENTAL."
    )
    raise LogUnfitError(msg)


def equal(connection: Connection, relation: Relation, one: str | None, other: str | None) -> bool:
    """Return whether two conditions are the same, however they are written; None is the one that all rows meet."""
    if one is None or other is None or one == other:
        return one == other
    return bool(_explain(connection, relation, one) == _explain(connection, relation, other))


def _has_subquery(plan: Mapping[str, Any]) -> bool:
    # a partitioned table has a plan for each partition, too
    of_subquery = {"SubPlan", "InitPlan"}
    return any(each["Parent Relationship"] in of_subquery or _has_subquery(each) for each in plan.get("Plans", ()))


def _takes(connection: Connection, relation: Relation, where: str, columns: Sequence[str]) -> bool:
    """Return whether a condition can be computed from some columns."""
    try:
        _explain(connection, relation, where, columns)
    except Error as error:
        if _code(error) is None or not str(_code(error)).startswith("42"):
            raise
        return False
    return True


def _explain(connection: Connection, relation: Relation, where: str, columns: Sequence[str] | None = None) -> Any:
    """Return the plan that computes a condition for each row. It is not simplified by what is known of the rows."""
    table: sql.Composable = sql.Identifier(relation.schema, relation.name)
    if columns is not None:
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        table = sql.SQL("(SELECT {} FROM {} OFFSET 0) {}").format(listed, table, sql.Identifier(relation.name))
    # AND refuses what is no condition
    query = sql.SQL("EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT true AND (")
    with connection.cursor() as cursor:
        cursor.execute(query + sql.SQL(where) + sql.SQL("\n) FROM ") + table)
        row = cursor.fetchone()
    assert row
    return row[0]


def _code(error: Error) -> str | None:
    """Return the SQLSTATE of an error of either driver."""
    return getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
