"""`tidemark follow`: runs of a source that follow its log, one after the other, until the process is asked to end.

Each run lasts for a while and not for ever, so that its outcome comes into the history, where alerts see it.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from singer_postgres.core.stop_file import VARIABLE
from tidemark.errors import Interruption, UsageError
from tidemark.inspect.check import streams
from tidemark.project import sources
from tidemark.run import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.progress import Listener
    from tidemark.run.report import RunReport

# the time from SIGTERM to the end of a run that does not end by itself; docker waits for 40 s
_PATIENCE_S = 20


def follow(project: Project, name: str | None, *, seconds: float, say: Listener) -> Iterator[RunReport]:
    """Yield the report of each run; end after one that failed, or once SIGTERM has come and the run has ended.

    Args:
        name: the source; None for the only one.
        seconds: how long each run lasts.

    Raises:
        UsageError: there is no such source, or no stream of it is LOG_BASED.
        TidemarkError: see `blocks.run`.
    """
    source = _source(project, name)
    stop = project.state_dir / f"stop-{uuid4()}"
    more = {f"{source.prefix}_REPLICATION_MAX_RUN_SECONDS": f"{seconds:g}", VARIABLE: str(stop)}
    try:
        with _stopped_by(stop):
            while not stop.exists():
                report = blocks.run(project, source.blocks.split(), run_id=str(uuid4()), say=say, more=more)
                yield report
                if report.error:
                    return
    finally:
        stop.unlink(missing_ok=True)


def _source(project: Project, name: str | None) -> SourceDefinition:
    chosen = sources.chosen(project, name)
    if len(chosen) > 1:
        raise UsageError(f"Name the source to follow: {', '.join(each.name for each in chosen)}.")
    (source,) = chosen
    if not streams.follows_log(streams.configuration(project, source)):
        raise UsageError(
            f"No stream of source {source.name} is LOG_BASED, so there is nothing to follow: set that "
            f"replication-method under `metadata` in {source.path}."
        )
    return source


@contextmanager
def _stopped_by(stop: Path) -> Iterator[None]:
    """Have the run end by itself at SIGTERM: what was read is loaded. A second one, or some time, interrupts it."""

    def ask(number: int, _: object) -> None:
        stop.touch()
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGALRM, lambda *_: interrupt(number))
        signal.alarm(_PATIENCE_S)

    def interrupt(number: int) -> None:
        raise Interruption(number)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGTERM, before)
