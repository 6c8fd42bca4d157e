"""Reads a stream as records, for targets, maps and tests that need them one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from singer_postgres.errors import SingerPostgresError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.tap.select import Selection

_FETCH_ROWS = 5_000


def read(  # noqa: PLR0913 - each is a part of one query
    connection: Connection,
    selection: Selection,
    *,
    properties: Mapping[str, Any],
    bound: sql.Composable | None,
    order_by: str | None,
    limit: int | None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `selection` under the transaction of `connection`, a few thousand in memory at a time.

    What has no JSON type of its own comes as the text that PostgreSQL gives.

    Args:
        properties: the stream's JSON schema, by column.
        bound: the condition that follows from the bookmark.
        order_by: a column.
        limit: the most rows to read.
    """
    names = [column.name for column in selection.columns]
    query = sql.SQL("SELECT {}, {} FROM ({}) selected").format(
        sql.SQL(", ").join(_expression(name, properties.get(name, {})) for name in names),
        _uncarried(
            {
                column.name: str(column.landing.type)
                for column in selection.columns
                if column.name not in selection.masks
            }
        ),
        selection.query(bound=bound),
    )
    if order_by is not None and order_by in names:
        query += sql.SQL(" ORDER BY {} NULLS FIRST").format(sql.SQL("selected.") + sql.Identifier(order_by))
    if limit is not None:
        query += sql.SQL(" LIMIT {}").format(sql.Literal(limit))
    with connection.cursor() as cursor:
        # by hand: psycopg2 makes a cursor of its own only in transactions that it began
        cursor.execute(sql.SQL("DECLARE records NO SCROLL CURSOR FOR ") + query)
        while True:
            cursor.execute(f"FETCH {_FETCH_ROWS} FROM records")
            rows = cursor.fetchall()
            for *values, uncarried in rows:
                if uncarried is not None:
                    relation = f"{selection.relation}.{uncarried}"
                    msg = (
                        f"{relation} has a value that records can't carry as it is (an infinity, NaN, a number past "
                        f"1.8e308, an array with bounds of its own): set use_copy, mask it, or deselect {uncarried}."
                    )
                    raise SingerPostgresError(msg)
                yield dict(zip(names, values, strict=True))
            if len(rows) < _FETCH_ROWS:
                return


def _uncarried(types: Mapping[str, str]) -> sql.Composable:
    """Return an expression: the name of a column whose value JSON, or the driver, would alter; null if none is."""
    cases = []
    for name, type_ in types.items():
        bare = type_.partition("(")[0]
        column = sql.SQL("selected.") + sql.Identifier(name)
        if type_.endswith("[]"):
            condition = sql.SQL("array_lower({}, 1) <> 1").format(column)
        elif bare in {"real", "double precision", "numeric"}:
            # NaN is greater than all numbers; a numeric past a float's range would become null
            condition = sql.SQL("{0} = 'NaN' OR abs({0}) > 1.7976931348623157e308").format(column)
        elif bare in {"date", "timestamp", "timestamp without time zone", "timestamp with time zone"}:
            condition = sql.SQL("NOT isfinite({})").format(column)
        else:
            continue
        cases.append(sql.SQL("WHEN {} THEN {}").format(condition, sql.Literal(name)))
    if not cases:
        return sql.SQL("NULL::text")
    return sql.SQL("CASE {} END").format(sql.SQL(" ").join(cases))


# as ISO 8601, and Python, have it: no fraction or one of six digits, and an offset of hours and minutes
_TIME = r"""(
    SELECT CASE WHEN strpos(clock, '.') > 0 THEN rpad(clock, 15, '0') ELSE clock END
        || CASE WHEN length(zone) = 3 THEN zone || ':00' ELSE zone END
    FROM (SELECT substring({0} from '^[0-9:.]+') AS clock, coalesce(substring({0} from '[-+].*$'), '') AS zone) time
)"""


def _expression(name: str, schema: Mapping[str, Any]) -> sql.Composable:
    column = sql.SQL("selected.") + sql.Identifier(name)
    kinds = set(schema.get("type", []))
    type_ = str(schema.get("x-sql-datatype", ""))
    if type_ in {"hstore", "hstore[]"} and "object" in (kinds | set(schema.get("items", {}).get("type", []))):
        return column + sql.SQL("::" + type_.replace("hstore", "jsonb"))
    if type_.startswith("time") and not type_.startswith("timestamp") and not type_.endswith("[]"):
        return sql.SQL(_TIME).format(column + sql.SQL("::text"))
    if type_.startswith(("character(", "bpchar")) and not type_.endswith("[]"):
        # a cast to text would take the blanks at its end away
        return column
    # the driver makes 00:00 of 24:00
    if kinds <= {"string", "null"} and schema.get("format") in {None, "uuid", "time"}:
        return column + sql.SQL("::text")
    if kinds - {"null"} == {"array"} and set(schema.get("items", {}).get("type", [])) <= {"string", "null"}:
        return column + sql.SQL("::text[]")
    return column
