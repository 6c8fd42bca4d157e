"""Prepares to follow the log: checks the slot and each table, and describes the streams."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from singer_postgres.core.errors import (
    BusyError,
    ColumnMissingError,
    LockBusyError,
    LogUnfitError,
    SlotAheadError,
    TableMissingError,
)
from singer_postgres.core.lsn import lsn_of, lsn_text
from singer_postgres.core.source import log_tables, older_writers, relations, slot_session
from singer_postgres.core.source.identity import identity
from singer_postgres.core.source.relations import Column
from singer_postgres.core.source.stream_query import StreamQuery, stream_query
from singer_postgres.core.wire import Table, WireColumn, refuse_own_name
from singer_postgres.tap import storage
from singer_postgres.tap.log import masking, message_columns
from singer_postgres.tap.log.log_stream import LogStream
from singer_postgres.tap.storage import Doubt

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.pgoutput import RelationMessage
    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.tap.storage import Storage
    from singer_postgres.tap.stream_plan import StreamPlan

_POLL_S = 0.2
# how long a killed session may keep the slot until the server notices
_SLOT_WAIT_S = 60.0


@dataclass(frozen=True)
class Following:
    """What is to be followed.

    Attributes:
        streams: those that can be followed.
        binary: all values can travel in binary form.
        confirmed: the position that the slot has confirmed.
        end: the position of the log now.
    """

    streams: tuple[LogStream, ...]
    binary: bool
    confirmed: str
    end: str


def prepare(  # noqa: PLR0913 - each argument has a name
    connection: Connection,
    plans: Iterable[tuple[StreamPlan, tuple[str, str, Storage | None] | None]],
    *,
    slot: str,
    publication: str,
    failed: Callable[[str, Exception], None],
    logger: logging.Logger,
    is_comparable: bool,
) -> Following:
    """Check what the log needs, and wait until each new table's rows can be read without missing any.

    Args:
        plans: the streams, each with its slot, position and storage in the state.
        failed: takes the streams that can't be followed.
        is_comparable: `tidemark slots repair` can compare the target's rows with the source.

    Raises:
        SlotMissingError: the slot can't be used.
        BusyError: another run follows it.
    """
    found = _free_slot(connection, slot)
    source = identity(connection)
    streams = []
    plans = list(plans)
    _refuse_shorter_log(connection, slot, [position for _, position in plans if position and position[0] == slot])
    for plan, position in plans:
        try:
            stream = _stream(
                connection,
                plan,
                position,
                source=source,
                slot=slot,
                publication=publication,
                logger=logger,
                is_comparable=is_comparable,
            )
        except (LogUnfitError, LockBusyError, TableMissingError, ColumnMissingError) as error:
            failed(plan.stream, error)
        else:
            streams.append(stream)
    return Following(
        tuple(streams),
        all(stream.is_binary for stream in streams),
        found.confirmed,
        log_tables.flush_lsn(connection),
    )


def _free_slot(connection: Connection, name: str) -> log_tables.Slot:
    """Return the slot, once no session streams it."""
    deadline = time.monotonic() + _SLOT_WAIT_S
    while (found := log_tables.slot(connection, name)).active_pid is not None:
        if time.monotonic() > deadline:
            raise BusyError(slot_session.in_use(connection, name) or slot_session.describe(name, found.active_pid))
        time.sleep(_POLL_S)
    return found


def _refuse_shorter_log(connection: Connection, slot: str, positions: list[tuple[str, str, Storage | None]]) -> None:
    """Refuse a server whose log ends before what was read of it.

    Raises:
        SlotAheadError: it does.
    """
    end = log_tables.flush_lsn(connection)
    beyond = max((lsn_of(position) for _, position, _ in positions), default=0)
    if beyond > lsn_of(end):
        msg = (
            f"The warehouse has changes of the slot {slot} up to {lsn_text(beyond)}, and the source's log ends at "
            f"{end}: the source was restored, or a standby was promoted that lacked them. `tidemark slots repair` "
            "compares the streams with the source, and goes on from there."
        )
        raise SlotAheadError(msg)


def _stream(  # noqa: PLR0913 - each argument has a name
    connection: Connection,
    plan: StreamPlan,
    position: tuple[str, str, Storage | None] | None,
    *,
    source: str,
    slot: str,
    publication: str,
    logger: logging.Logger,
    is_comparable: bool,
) -> LogStream:
    refuse_own_name(plan.stream, plan.name)
    relation = relations.find(connection, plan.schema, plan.name)
    if relation is None:
        msg = f"The source has no {plan.schema}.{plan.name}; correct `select`, or run discovery again."
        raise TableMissingError(msg)
    xid = log_tables.published_by(connection, publication, relation, plan.key, columns=plan.columns, where=plan.where)
    generated = set(log_tables.not_sent(connection, publication, relation)) & set(plan.columns)
    if generated:
        names = ", ".join(sorted(generated))
        logger.warning("%s is followed without %s: the log has no values of generated columns.", plan.stream, names)
        plan = replace(plan, columns=tuple(name for name in plan.columns if name not in generated))
    selection = stream_query(relation, plan.columns, key=plan.key, masks=plan.masks, where=plan.where)
    table, columns, is_binary = _described(source, plan, selection)
    columns = replace(columns, published=xid)
    before = plan.columns_before
    is_loading = position is None or position[0] != slot or before is None
    # of a first load that is not complete, too
    is_begun = before is not None and (not is_loading or bool(plan.first_load))
    has_other_condition = before is not None and _has_other_condition(selection, before, xid)
    only_compare = is_comparable and not is_loading
    if before and is_begun and (why := _why_again(selection, before, xid, only_compare=only_compare)) is not None:
        logger.warning(
            "Reading %s from its beginning: %s. Rows that no longer belong to it stay until `tidemark reconcile "
            "--repair`.",
            plan.stream,
            why,
        )
        plan, is_loading = replace(plan, first_load=None, compared_at=None), True
    altered = None
    if is_loading or before is None:
        older_writers.wait(connection, relation.oid, stream=plan.stream, warn=logger.warning)
    elif before.columns != columns.columns:
        # The log is still where the table was as it was before. Text suits also columns that are gone by now.
        is_binary &= {(attnum, type_) for _, attnum, _, type_ in before.columns} <= {
            (attnum, type_) for _, attnum, _, type_ in columns.columns
        }
        altered = table, columns
        table, columns = _as_before(table, before), replace(before, where=columns.where, published=xid)
    earlier = position[2] if position and not is_loading else None
    doubt, republished = storage.doubt(earlier, relation.leaves), None
    if before and has_other_condition and not is_loading:
        doubt = Doubt("its condition (where) was changed", is_rewrite=False)
        columns = replace(columns, where=before.where, published=before.published)
        republished = _published_for_all(connection, plan, relation.oid, xid, logger)
    return LogStream(
        plan,
        table,
        columns,
        is_binary,
        is_loading,
        storage=storage.of(relation.leaves),
        earlier_storage=earlier,
        doubt=doubt,
        altered=altered,
        republished=republished,
        skip_before=lsn_of(plan.compared_at) if plan.compared_at else 0,
    )


def _has_other_condition(selection: StreamQuery, before: ReadColumns, xid: str) -> bool:
    """Return whether the publication has another condition than in the last run."""
    return before.published not in {None, xid} and before.where != tuple(selection.where)


def _why_again(selection: StreamQuery, before: ReadColumns, xid: str, *, only_compare: bool) -> str | None:
    """Return why a stream must be loaded again; None if it need not.

    Args:
        only_compare: with another condition, it need not: its rows can be compared.
    """
    if before.published is None:
        return selection.unread(before)
    if _has_other_condition(selection, before, xid):
        if not only_compare:
            return "its condition (where) was changed"
    elif before.published != xid:
        return "it was published again, and the log lacks what changed meanwhile"
    # the publication has the condition, however it is written
    return selection.unread(replace(before, where=tuple(selection.where)))


def _published_for_all(
    connection: Connection, plan: StreamPlan, table_oid: int, xid: str, logger: logging.Logger
) -> tuple[str, tuple[str, ...]] | None:
    """Wait until no transaction is open of which the log has some changes by the condition before this one.

    Return what the state is to say then of the publication; None if such transactions stay open.
    """
    try:
        older_writers.wait(connection, table_oid, stream=plan.stream, warn=logger.warning)
    except LockBusyError as error:
        logger.warning("%s", error)
        return None
    return xid, plan.where


def _as_before(table: Table, before: ReadColumns) -> Table:
    """Return a description with the columns that the last run read."""
    now = {column.attnum: column for column in table.columns}
    columns = tuple(
        replace(now[attnum], name=name)
        if attnum in now and now[attnum].type == type_
        else WireColumn(name, type_ or "text", attnum=attnum)
        for name, attnum, _, type_ in before.columns
    )
    names = {now[column.attnum].name: column.name for column in columns if column.attnum in now}
    key = tuple(names.get(name, name) for name in table.key)
    return replace(table, columns=columns, key=key, max_attnum=before.max_attnum)


def describe(connection: Connection, stream: LogStream, message: RelationMessage) -> tuple[Table, ReadColumns, bool]:
    """Describe a stream's table as the log has it from here on, which may not be how it is now.

    If it can't be told which column is which, the stream's rows are in doubt from here on.

    Raises:
        LogUnfitError: a key column is gone.
    """
    plan = stream.plan
    now = relations.find(connection, message.schema, message.name)
    attributes = {column.attnum: column for column in now.columns} if now and now.oid == message.oid else {}
    earlier = {name: attnum for name, attnum, *_ in plan.columns_before.columns} if plan.columns_before else {}
    attnums = message_columns.attnums(
        [column.name for column in message.columns],
        {column.name: attnum for attnum, column in attributes.items()},
        earlier,
        log_tables.generated(connection, message.oid),
    )
    # Nobody said that a column is to be read which came after the last run, and is gone by now.
    wanted = [
        (column, attributes.get(attnum), attnum)
        for column, attnum in zip(message.columns, attnums, strict=True)
        if (attributes[attnum].name in plan.columns if attnum in attributes else column.name in earlier)
    ]
    unknown = [column.name for column, attnum in zip(message.columns, attnums, strict=True) if not attnum]
    unseen = [
        column.name for attnum, column in attributes.items() if attnum not in attnums and column.name in plan.columns
    ]
    if unknown and unseen and not stream.doubt:
        why = f"{', '.join(unknown)} was dropped, or renamed to {' or '.join(unseen)}"
        stream.doubt = Doubt(why, is_rewrite=False)
    types = relations.column_types(connection, [(column.type_oid, column.type_modifier) for column, *_ in wanted])
    columns = []
    for (column, known, attnum), (declared, type_) in zip(wanted, types, strict=True):
        is_same = known is not None and known.declared == declared
        columns.append(
            replace(known, name=column.name, not_null=False)
            if known and is_same
            else Column(column.name, declared, type_, not_null=False, attnum=attnum)
        )
    # key and masks are those of the columns, under the names that the log has
    names = {known.name: column.name for column, known, _ in wanted if known}
    if missing := set(plan.key) - names.keys():
        msg = f"{plan.stream} lost {', '.join(sorted(missing))}, a part of its key: correct its key, and load it again."
        raise LogUnfitError(msg)
    assert now
    plan = replace(
        plan,
        key=tuple(names[name] for name in plan.key),
        masks={**plan.masks, **{names[name]: mask for name, mask in plan.masks.items() if name in names}},
    )
    selection = StreamQuery(replace(now, columns=tuple(columns)), tuple(columns), plan.masks, plan.where)
    table, read, is_binary = _described(stream.table.source, plan, selection)
    return table, replace(read, where=stream.columns.where, published=stream.columns.published), is_binary


def _described(source: str, plan: StreamPlan, selection: StreamQuery) -> tuple[Table, ReadColumns, bool]:
    table, columns = plan.described(source, selection)
    return table, columns, selection.binary and not _needs_text(selection)


def _needs_text(selection: StreamQuery) -> bool:
    """Return whether a mask needs the text of a value that is no text."""
    return any(
        selection.masks.get(column.name) == "sha256" and not masking.is_text(column.declared)
        for column in selection.columns
    )
