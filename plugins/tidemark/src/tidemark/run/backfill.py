"""Reads rows of some streams again without moving a bookmark, then builds and tests the models that depend on them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.source import backfill as ranges
from singer_postgres.core.source import relations
from tidemark.errors import TidemarkError, UsageError
from tidemark.inspect import named_streams
from tidemark.inspect.reconcile.pairing import Endpoints
from tidemark.project import meltano_project
from tidemark.run import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from singer_postgres.core.source.backfill import Backfill
    from tidemark.inspect.check.streams import Stream
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.progress import Listener
    from tidemark.run.report import RunReport
    from tidemark.run.steps import BackfillStep


def backfill(  # noqa: PLR0913 - each argument has a name
    project: Project,
    streams: Sequence[str],
    asked: Backfill,
    *,
    steps: Iterable[BackfillStep],
    run_id: str,
    say: Listener,
    moved_since: datetime | None = None,
    source: str | None = None,
) -> RunReport:
    """Run some steps of a backfill. Check everything first, whichever steps these are.

    Args:
        source: the name of the streams' source, if several have such streams.

    Raises:
        UsageError: a stream is unknown, or can't be backfilled like this.
        BusyError: another run of this project is active.
        TidemarkError: a stream is not loaded, or a database can't be reached or used.
    """
    meant = named_streams.by_source(project, streams, source)
    chosen = {each: _checked(project, each, names, asked) for each, names in meant.items()}
    names = [block for step in steps for block in step.blocks(chosen)]
    more = _variables(chosen, asked)
    return blocks.run(project, names, run_id=run_id, say=say, more=more, save_state=False, moved_since=moved_since)


def _checked(project: Project, definition: SourceDefinition, streams: Sequence[str], asked: Backfill) -> list[Stream]:
    ends = Endpoints.of(project, definition, streams)
    chosen = [ends.selected[name] for name in dict.fromkeys(streams)]
    with ends.connected() as (source, warehouse):
        for stream in chosen:
            if stream.incremental:
                relation = relations.find(source, *stream.relation.path)
                if relation is None:
                    raise TidemarkError(f"{stream.name}: the source no longer has this table; correct `select`.")
                if not (stream.key or relation.key):
                    raise UsageError(f"{stream.name} has no primary key, so rows would be duplicated; name others.")
                try:
                    ranges.bound(source, stream.name, ends.replication_key(stream, relation), asked)
                except SingerPostgresError as error:
                    raise UsageError(str(error)) from error
            elif stream.method == "LOG_BASED":
                raise UsageError(
                    f"{stream.name} is LOG_BASED, so its log has all changes: `tidemark reconcile {stream.name} "
                    "--repair` compares its rows and writes those that differ; name other streams here."
                )
            elif not asked.is_all:
                raise UsageError(f"{stream.name} is read in full at every run; use --all, or name others.")
            bookmark = ends.loaded_up_to(source, warehouse, stream)
            if stream.incremental and bookmark is None:
                raise TidemarkError(f"The first load of {stream.name} is not complete; run the pipeline first.")
    return chosen


def _variables(chosen: Mapping[SourceDefinition, Sequence[Stream]], asked: Backfill) -> dict[str, str]:
    """Return the variables that limit taps and dbt to the chosen streams."""
    found: dict[str, str] = {}
    for source, streams in chosen.items():
        found |= meltano_project.only(source.prefix, [stream.name for stream in streams])
        named = {meltano_project.escaped(stream.name): asked.to_json() for stream in streams}
        found[f"{source.prefix}_BACKFILL"] = json.dumps(named)
    touched = [_selector(stream.relation.name) for streams in chosen.values() for stream in streams]
    return {**found, "DBT_TOUCHED": " ".join(dict.fromkeys(touched))}


def _selector(table: str) -> str:
    """Return dbt's selector for a table and everything that depends on it, in a source of any name."""
    # ? matches any character: some characters have a special meaning in dbt's selectors
    table = re.sub(r"[^\w-]", "?", table)
    return f"source:*.{table}+"
