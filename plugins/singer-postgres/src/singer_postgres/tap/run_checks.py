"""Checks what a run was asked for against what the source has, before anything is read."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from singer_postgres.core import setting_names
from singer_postgres.core.driver_errors import log_fields
from singer_postgres.core.errors import SettingInvalidError, TableMissingError
from singer_postgres.core.source import relations, selected_streams
from singer_postgres.core.source.stream_query import ReadColumns
from singer_postgres.core.wire import SHAPE
from singer_postgres.singer import configuration
from singer_postgres.tap.streams import CopyStream

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from singer_sdk import Stream

    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.stream_plan import StreamPlan


def refuse_misspelt(
    config: Mapping[str, Any], catalog: Mapping[str, Any], source: SourceConnector, logger: logging.Logger
) -> None:
    """Refuse settings that misspell a stream's name.

    Raises:
        SingerPostgresError: a name is misspelt, so a mask or a condition would have no effect.
    """
    named = {(name, stream) for name in setting_names.BY_STREAM for stream in config.get(name) or ()}
    known = {entry["tap_stream_id"] for entry in catalog["streams"]}
    if unknown := sorted(pair for pair in named if pair[1] not in known):
        # discovery may have left out streams that are not selected
        configuration.check_names(unknown, known | _every_name(source), logger)


def refuse_parts(
    config: Mapping[str, Any],
    selected: Sequence[Stream],
    *,
    probe: Callable[[StreamPlan], AbstractContextManager[Any]],
) -> None:
    """Refuse a backfill, or a part of a first load, that is impossible.

    Args:
        probe: opens a stream.

    Raises:
        SingerPostgresError, psycopg2.Error: it is impossible.
    """
    by_name = {stream.name: stream for stream in selected}
    for name in config.get("backfill") or {}:
        stream = by_name.get(name)
        if stream is None:
            msg = f"`backfill` names {name}, which is not selected; selected are {', '.join(sorted(by_name))}."
            raise SettingInvalidError(msg)
        is_followed = stream.replication_method == "LOG_BASED" or not isinstance(stream, CopyStream)
        why = "it is LOG_BASED" if is_followed else stream.why_records
        if why is not None:
            what = f"{name} can't be backfilled, because it isn't sent in chunks: {why}"
            msg = f"{what}. Change that, or leave out `backfill`."
            raise SettingInvalidError(msg)
        with probe(stream.plan):
            pass
    for name in config.get("first_load_part") or {}:
        stream = by_name.get(name)
        if not isinstance(stream, CopyStream) or stream.why_records or stream.replication_method != "INCREMENTAL":
            msg = f"`first_load_part` names {name}, which is not INCREMENTAL and sent in chunks; unset it."
            raise SettingInvalidError(msg)


def missing(
    catalog: Mapping[str, Any], state: Mapping[str, Any], source: SourceConnector, logger: logging.Logger
) -> Iterator[tuple[str, TableMissingError]]:
    """Yield the streams that Meltano was asked to select and that the source no longer has, each with its error.

    Warn about streams that `metadata` describes and the source does not have.

    Args:
        catalog: what the tap was given; an empty one counts, because every table of `select` may be gone.
    """
    selected = selected_streams.selected_streams()
    if selected is None:
        return
    known = {entry["tap_stream_id"] for entry in catalog["streams"]}
    gone = selected.missing(known)
    described = set(selected.described) - known - set(gone)
    if described:
        # discovery may have left out streams that are not selected
        for name in sorted(described - _every_name(source)):
            error = TableMissingError(f"`metadata` names {name}, which the source does not have; correct it.")
            logger.warning("%s", error, extra=log_fields(error, side="source", stream=name))
    if not gone:
        return
    with closing(source.connect()) as connection:
        for name in gone:
            before = state.get("bookmarks", {}).get(name, {}).get(SHAPE)
            was = ReadColumns.from_json(before).table_oid if before else 0
            yield name, TableMissingError(relations.why_missing(connection, name, was))


def _every_name(source: SourceConnector) -> set[str]:
    with closing(source.connect()) as connection:
        return {f"{head.schema}-{head.name}" for head in relations.heads(connection, every=True)}
