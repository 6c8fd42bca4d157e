"""The SQL that merges staged rows into a table: it inserts new rows, updates changed ones, and leaves the rest alone.

A join removes rows that the table already has, so a replay takes no lock and writes nothing. A no-op ON CONFLICT would
lock and log every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.metadata_columns import METADATA
from singer_postgres.core.warehouse.schema_changes import LOADED_XID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from singer_postgres.core.warehouse.metadata_columns import Stamp


def upsert(  # noqa: PLR0913 - the parts of the statement
    stage: sql.Composable,
    target: sql.Composable,
    *,
    columns: Sequence[str],
    key: Sequence[str],
    stamp: Stamp,
    guarded: bool = True,
    within: sql.Composable | None = None,
) -> sql.Composed:
    """Return the statement that merges the rows of `stage` into `target`; see `counted`.

    Args:
        guarded: skip a row if its snapshot is older than that of the existing row.
        within: a condition that existing rows `t` with a key of the stage meet; see `partitions.make_room`.
    """
    values = stamp.expressions()
    query = sql.SQL("INSERT INTO {target} AS t ({names}) SELECT {fields}, {values} FROM {stage} s").format(
        target=target,
        stage=stage,
        names=names([*columns, *METADATA]),
        fields=names(columns, "s"),
        values=sql.SQL(", ").join(values[name] for name in METADATA),
    )
    if not key:
        return query
    newer: sql.Composable = sql.SQL("true")
    if guarded:
        at = values["_sdc_extracted_at"]
        newer = sql.SQL("(t._sdc_extracted_at IS NULL OR t._sdc_extracted_at <= {})").format(at)
    return query + sql.SQL(
        " LEFT JOIN {target} t ON {matched} "
        "WHERE t.{first_key} IS NULL OR ({newer} AND ({differs} OR t._sdc_deleted_at IS NOT NULL)) "
        "ON CONFLICT ({key}) DO UPDATE SET {updates} WHERE {newer}"
    ).format(
        target=target,
        matched=matched(key, within),
        first_key=sql.Identifier(key[0]),
        newer=newer,
        differs=differs(columns),
        key=names(key),
        updates=sql.SQL(", ").join(
            # the key's columns too: 1.0 and 1.00 are equal as keys, but not the same value
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
            for name in [*columns, *METADATA]
        ),
    )


def upsert_records(  # noqa: PLR0913 - the parts of the statement
    stage: sql.Composable,
    target: sql.Composable,
    *,
    columns: Sequence[str],
    compared: Sequence[str],
    key: Sequence[str],
    within: sql.Composable | None = None,
) -> sql.Composed:
    """Return the statement that merges staged records, which have their own metadata, into `target`; see `counted`.

    Args:
        compared: the columns that are compared with the existing row.
        within: as for `upsert`.
    """
    query = sql.SQL(
        "INSERT INTO {target} AS t ({names}, {xid}) SELECT {fields}, pg_current_xact_id() FROM {stage} s"
    ).format(
        target=target, stage=stage, names=names(columns), fields=names(columns, "s"), xid=sql.Identifier(LOADED_XID)
    )
    if not key:
        return query
    return query + sql.SQL(
        " LEFT JOIN {target} t ON {matched} WHERE t.{first_key} IS NULL OR {differs} "
        "ON CONFLICT ({key}) DO UPDATE SET {updates}"
    ).format(
        target=target,
        matched=matched(key, within),
        first_key=sql.Identifier(key[0]),
        differs=differs(compared),
        key=names(key),
        updates=sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in [*columns, LOADED_XID]
        ),
    )


def counted(insert: sql.Composable, into: Into) -> sql.Composed:
    """Return a query that runs `insert` and returns the numbers of inserted and updated rows."""
    return sql.SQL(
        "WITH merged AS ({} RETURNING {}) "
        "SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM {}"
    ).format(insert, into.returning, into.merged)


@dataclass(frozen=True)
class Into:
    """The table of an INSERT … ON CONFLICT, and how its inserted and updated rows are told apart.

    Attributes:
        is_partitioned: PostgreSQL returns no system column of it.
        within: as for `upsert`.
    """

    target: sql.Composable
    key: Sequence[str]
    is_partitioned: bool = False
    within: sql.Composable | None = None

    @property
    def returning(self) -> sql.Composable:
        """What the INSERT, of the table AS t, returns."""
        if self.is_partitioned and self.key:
            return names(self.key, "t")
        # ON CONFLICT locks a row before it updates it, which sets xmax; an inserted row has xmax 0
        return sql.SQL("true AS inserted" if self.is_partitioned else "xmax = 0 AS inserted")

    @property
    def merged(self) -> sql.Composable:
        """What to select `inserted` from, if the INSERT's rows are called `merged`."""
        if not (self.is_partitioned and self.key):
            return sql.SQL("merged")
        # a statement sees the table as it was before
        return sql.SQL("(SELECT t.{} IS NULL AS inserted FROM merged s LEFT JOIN {} t ON {}) found").format(
            sql.Identifier(self.key[0]), self.target, matched(self.key, self.within)
        )


def not_as_staged(
    stage: sql.Composable, target: sql.Composable, *, columns: Sequence[str], key: Sequence[str], stamp: Stamp
) -> sql.Composed:
    """Return the query that counts staged rows which `upsert` should have written and which `target` lacks."""
    at = stamp.expressions()["_sdc_extracted_at"]
    return sql.SQL(
        "SELECT count(*) FROM {stage} s LEFT JOIN {target} t ON {matched} WHERE t.{first_key} IS NULL OR "
        "((t._sdc_extracted_at IS NULL OR t._sdc_extracted_at <= {at}) "
        "AND ({differs} OR t._sdc_deleted_at IS NOT NULL))"
    ).format(
        stage=stage,
        target=target,
        matched=matched(key),
        first_key=sql.Identifier(key[0]),
        at=at,
        differs=differs(columns),
    )


def other_values(
    stage: sql.Composable,
    target: sql.Composable,
    *,
    columns: Sequence[str],
    compared: Sequence[str],
    key: Sequence[str],
) -> sql.Composed:
    """Return the query whether rows that seem unchanged have other values in some columns.

    Args:
        columns: those columns. If they belong to the key, the query looks for a row under another key.
        compared: the columns that make a row seem unchanged.
    """
    unchanged = sql.SQL("ROW({})::text = ROW({})::text").format(names(compared, "t"), names(compared, "s"))
    if set(columns) & set(key):
        return sql.SQL(
            "SELECT EXISTS (SELECT FROM {stage} s JOIN {target} t ON {unchanged} WHERE t._sdc_deleted_at IS NULL "
            "AND NOT EXISTS (SELECT FROM {target} o WHERE {same}))"
        ).format(
            stage=stage,
            target=target,
            unchanged=unchanged,
            same=sql.SQL(" AND ").join(sql.SQL("o.{0} = s.{0}").format(sql.Identifier(name)) for name in key),
        )
    return sql.SQL(
        "SELECT EXISTS (SELECT FROM {stage} s JOIN {target} t ON {matched} WHERE {unchanged} "
        "AND num_nonnulls({values}) > 0 AND {differs})"
    ).format(
        stage=stage,
        target=target,
        matched=matched(key),
        unchanged=unchanged,
        values=names(columns, "t"),
        differs=differs(columns),
    )


def delete_missing(stage: sql.Composable, target: sql.Composable, *, key: Sequence[str], hard: bool) -> sql.Composed:
    """Return the statement that deletes rows of `target` that `stage` lacks, or marks them as deleted."""
    gone = sql.SQL("NOT EXISTS (SELECT FROM {stage} s WHERE {matched})").format(stage=stage, matched=matched(key))
    if hard:
        return sql.SQL("DELETE FROM {} t WHERE {}").format(target, gone)
    return sql.SQL(
        "UPDATE {} t SET _sdc_deleted_at = now(), _tidemark_loaded_xid = pg_current_xact_id() "
        "WHERE t._sdc_deleted_at IS NULL AND {}"
    ).format(target, gone)


def delete_older(target: sql.Composable, *, version: int, hard: bool) -> sql.Composed:
    """Return the statement that deletes rows with a table version below `version`, or marks them as deleted."""
    older = sql.SQL("(t._sdc_table_version IS NULL OR t._sdc_table_version < {})").format(sql.Literal(version))
    if hard:
        return sql.SQL("DELETE FROM {} t WHERE {}").format(target, older)
    return sql.SQL(
        "UPDATE {} t SET _sdc_deleted_at = now(), _tidemark_loaded_xid = pg_current_xact_id() "
        "WHERE t._sdc_deleted_at IS NULL AND {}"
    ).format(target, older)


def same_rows(stage: sql.Composable, target: sql.Composable, *, columns: Sequence[str]) -> sql.Composed:
    """Return the query whether two tables without a key have the same rows, equally often.

    It compares their text, which every type has.
    """
    return sql.SQL(
        "SELECT NOT EXISTS (SELECT ROW({s})::text FROM {stage} s EXCEPT ALL SELECT ROW({t})::text FROM {target} t) "
        "AND (SELECT count(*) FROM {stage} s) = (SELECT count(*) FROM {target} t)"
    ).format(s=names(columns, "s"), t=names(columns, "t"), stage=stage, target=target)


def matched(key: Iterable[str], within: sql.Composable | None = None) -> sql.Composable:
    """Return the condition that `s` and `t` have the same key, and that `t` meets another one."""
    equal = [sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in key]
    return sql.SQL(" AND ").join([*equal, within] if within is not None else equal)


def differs(columns: Sequence[str]) -> sql.Composable:
    """Return the condition that `s` and `t` differ in any bit.

    The record comparison works for all types, treats nulls as equal, and tells 1.0 from 1.00. IS DISTINCT FROM fails
    on json, xml and point.
    """
    return sql.SQL("ROW({})::record *<> ROW({})::record").format(names(columns, "t"), names(columns, "s"))


def names(columns: Iterable[str], alias: str | None = None) -> sql.Composable:
    """Return a list of column names as SQL."""
    qualified = [(alias, column) if alias else (column,) for column in columns]
    return sql.SQL(", ").join(sql.Identifier(*parts) for parts in qualified)
