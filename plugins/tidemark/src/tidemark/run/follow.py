"""`tidemark follow`: runs of a source that follow its log, one after the other, until the process is asked to end.

Each run lasts for a while and not for ever, so that its outcome comes into the history, where alerts see it.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from singer_postgres.core.stop_file import FOLLOWER, VARIABLE
from tidemark.errors import UsageError
from tidemark.inspect.check import streams
from tidemark.project import sources
from tidemark.run import blocks
from tidemark.run.progress import LineProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.progress import Listener
    from tidemark.run.report import RunReport

# the time from a signal to the end of a run that does not end by itself; docker waits for 40 s
_PATIENCE_S = 20
# Ctrl-C, a supervisor's stop
_ASKING = (signal.SIGINT, signal.SIGTERM)


def follow(
    project: Project,
    name: str | None,
    *,
    seconds: float,
    say: Listener,
    show: Callable[[str], None] | None = None,
) -> Iterator[RunReport]:
    """Yield the report of each run; end after one that failed, or once a signal has come and the run has ended.

    Args:
        name: the source; None for the only one.
        seconds: how long each run lasts.
        show: see `LineProgress`.

    Raises:
        UsageError: there is no such source, or no stream of it is LOG_BASED.
        TidemarkError: see `blocks.run`.
    """
    source = _source(project, name)
    stop = project.state_dir / f"stop-{uuid4()}"
    more = {
        f"{source.prefix}_REPLICATION_MAX_RUN_SECONDS": f"{seconds:g}",
        VARIABLE: str(stop),
        FOLLOWER: str(os.getpid()),
    }
    view = LineProgress(say, show)
    try:
        with _stopped_by(stop, say):
            while not stop.exists():
                report = blocks.run(
                    project, source.blocks.split(), run_id=str(uuid4()), say=say, more=more, view=view, apart=True
                )
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
def _stopped_by(stop: Path, say: Listener) -> Iterator[None]:
    """Have the run end by itself at SIGINT or SIGTERM: what was read is loaded. Another one, or time, interrupts it."""
    before = {number: signal.getsignal(number) for number in _ASKING}

    def ask(number: int, _: object) -> None:
        stop.touch()
        put_back()
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.alarm(_PATIENCE_S)
        again = ", Ctrl-C again interrupts it" if number == signal.SIGINT else ""
        # the signal may have come in the middle of another line's output
        with suppress(RuntimeError):
            say("info", f"Ending: what was read is loaded first, in {_PATIENCE_S} s at most{again}.")

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in _ASKING:
        signal.signal(number, ask)
    try:
        yield
    finally:
        signal.alarm(0)
        put_back()
