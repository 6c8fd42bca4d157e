"""Runs `meltano run` as a child process and yields its log lines as events."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import yaml

from singer_postgres.core import run_events
from tidemark.errors import TidemarkError
from tidemark.held_signals import held_back
from tidemark.project.file_locks import share
from tidemark.run.end_processes import WAIT_S, end_with_plugins
from tidemark.run.events import Event, parse, parse_own

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tidemark.project.directory import Project


@contextmanager
def run(  # noqa: PLR0913 - each argument has a name
    project: Project,
    blocks: Sequence[str],
    *,
    run_id: str,
    lock: int,
    environment: dict[str, str],
    save_state: bool = True,
    apart: bool = False,
) -> Iterator[Iterator[Event]]:
    """Start `meltano run` with `blocks` and yield its events. On exit, the child has ended.

    Args:
        run_id: a UUID that all log lines carry.
        lock: the descriptor of the run's lock. The child keeps the lock until it ends, even if this process dies.
        environment: variables that override those of this process.
        save_state: if false, Meltano passes no state to the tap and saves none.
        apart: Ctrl-C in the terminal is for this process alone, which has the run end by other means.

    Raises:
        TidemarkError: Meltano is not installed.
    """
    if not project.meltano.exists():
        raise TidemarkError(f"Meltano is not installed at {project.meltano}; run `make setup`.")
    config = project.state_dir / "logging.yaml"
    config.write_text(yaml.safe_dump(_logging_as_json(project)))
    own = project.state_dir / f"run-{run_id}.jsonl"
    own.touch(mode=0o600)
    options = ["--no-install", f"--run-id={run_id}", *([] if save_state else ["--no-state-update"])]
    with held_back() as let_go:
        child = subprocess.Popen(
            [project.meltano, f"--log-config={config}", "run", *options, *blocks],
            cwd=project.root,
            # the pipeline's own lock keeps two runs apart; without this variable, Meltano would refuse the run after a
            # killed one for five minutes
            env={
                # so that the log names the model of each line; tidemark.logs.meltano_lines parses it
                "DBT_LOG_FORMAT": "json",
                **os.environ,
                **environment,
                "MELTANO_RUN_FORCE": "1",
                "PYTHONUNBUFFERED": "1",
                "TIDEMARK_RUN_ID": run_id,
                run_events.VARIABLE: str(own),
            },
            # Meltano writes each plugin's settings to a file, including passwords
            umask=0o077,
            process_group=0 if apart else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=[lock],
        )
        assert child.stderr
        try:
            let_go()
            share(lock, child.pid)
            events = _events(child.stderr, own)
            yield events
            # a child that writes into a full pipe would never end
            for _ in events:
                pass
            try:
                child.wait(timeout=WAIT_S)
            except subprocess.TimeoutExpired:
                raise TidemarkError(
                    f"`meltano run` (pid {child.pid}) closed its log and did not end in {WAIT_S} s; it was stopped. "
                    f"Run this again. Full log: grep {run_id} {project.run_log}"
                ) from None
        except BaseException:
            end_with_plugins(child)
            raise
        finally:
            own.unlink(missing_ok=True)


def _events(lines: IO[str], own: Path) -> Iterator[Event]:
    """Yield the events of Meltano's log, and before each line those that the run's utilities wrote meanwhile."""
    with own.open(encoding="utf-8") as file:
        for line in lines:
            for written in file:
                yield from parse_own(written)
            yield from parse(line)
        for written in file:
            yield from parse_own(written)


def _logging_as_json(project: Project) -> dict[str, object]:
    """Return the project's logging configuration, with JSON lines on the console instead of text."""
    path = project.root / "logging.yaml"
    if not path.is_file():
        raise TidemarkError(f"{path} is missing; restore it with git.")
    config: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(path.read_text())
    config["handlers"]["console"]["formatter"] = "json"
    return dict(config)
