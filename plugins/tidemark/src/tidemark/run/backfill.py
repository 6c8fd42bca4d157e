"""Reads rows of some streams again without moving a bookmark, then builds and tests the models that depend on them."""

from __future__ import annotations

import glob
import json
import re
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.source import backfill as ranges
from singer_postgres.core.source import identity, relations
from tidemark.errors import TidemarkError, UsageError
from tidemark.inspect.reconcile.pairing import Endpoints, loaded_up_to
from tidemark.run import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from singer_postgres.core.source.backfill import Backfill
    from tidemark.inspect.check.streams import Stream
    from tidemark.project.directory import Project
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
) -> RunReport:
    """Run some steps of a backfill. Check everything first, whichever steps these are.

    Raises:
        UsageError: a stream is unknown, or can't be backfilled like this.
        BusyError: another run of this project is active.
        TidemarkError: a stream is not loaded, or a database can't be reached or used.
    """
    chosen = _checked(project, streams, asked)
    names = [block for step in steps for block in step.blocks]
    more = _variables(chosen, asked)
    return blocks.run(project, names, run_id=run_id, say=say, more=more, save_state=False, moved_since=moved_since)


def _checked(project: Project, streams: Sequence[str], asked: Backfill) -> list[Stream]:
    ends = Endpoints.of(project, streams)
    chosen = [ends.selected[name] for name in dict.fromkeys(streams)]
    with ends.connected() as (source, warehouse):
        source_id = identity.identity(source)
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
                raise UsageError(f"{stream.name} is LOG_BASED, so it is only read from the log; name others.")
            elif not asked.is_all:
                raise UsageError(f"{stream.name} is read in full at every run; use --all, or name others.")
            schema = ends.warehouse.default_target_schema
            bookmark = loaded_up_to(source, warehouse, source_id, schema, stream)
            if stream.incremental and bookmark is None:
                raise TidemarkError(f"The first load of {stream.name} is not complete; run the pipeline first.")
    return chosen


def _variables(chosen: Sequence[Stream], asked: Backfill) -> dict[str, str]:
    """Return the variables that limit tap and dbt to the chosen streams."""
    # a filter does not change the selection of columns
    only = [_escaped(glob.escape(stream.name)) for stream in chosen]
    return {
        "TAP_POSTGRES__SELECT_FILTER": json.dumps(only),
        "TAP_POSTGRES_BACKFILL": json.dumps({_escaped(stream.name): asked.to_json() for stream in chosen}),
        "DBT_TOUCHED": " ".join(_selector(stream.relation.name) for stream in chosen),
    }


def _escaped(name: str) -> str:
    """Return a name in Meltano's notation: Meltano treats an unescaped dot as the end of the name."""
    return name.replace(".", r"\.")


def _selector(table: str) -> str:
    """Return dbt's selector for a table and everything that depends on it, in a source of any name."""
    # ? matches any character: some characters have a special meaning in dbt's selectors
    table = re.sub(r"[^\w-]", "?", table)
    return f"source:*.{table}+"
