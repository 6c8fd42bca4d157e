"""`tidemark slots enforce`: what `max_slot_wal_action` says about slots whose WAL is over `max_slot_wal_mb`.

A run looks at its slot itself. This is for the time when no run begins, and so it has a schedule of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_postgres.core.source import slot_wal
from tidemark.inspect.check import streams
from tidemark.project import connections, database_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition


def enforce(project: Project, source: SourceDefinition) -> Iterator[str]:
    """Drop the slot of a source if it is over its budget and is to be dropped. Yield what was found over it.

    A slot that a run reads is left to that run, which may catch up.

    Raises:
        TidemarkError: the source can't be reached.
    """
    configuration = streams.configuration(project, source)
    budget, slot = configuration.slot_budget, configuration.slot
    if budget.mb is None:
        return
    with connections.connect(database_settings.source(project, source)) as connection:
        wal = slot_wal.measure(connection, slot)
        if wal is None or budget.level(wal) is not slot_wal.Level.over:
            return
        what = budget.describe(slot, wal)
        if wal.active_pid is not None:
            yield f"{what}; a run reads it (pid {wal.active_pid}), and its end decides"
        elif budget.drops and slot_wal.drop(connection, slot):
            yield f"{what}: it was dropped; `tidemark slots repair` makes it again and brings its streams back"
        else:
            oldest = slot_wal.oldest_writer(connection)
            held = f"; the oldest transaction is of {oldest.who}, {oldest.seconds:.0f} s old" if oldest else ""
            yield f"{what}{held}: run its tap, or drop it with `tidemark slots drop {slot}`"
