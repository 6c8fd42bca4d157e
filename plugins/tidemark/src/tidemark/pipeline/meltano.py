"""Runs `meltano run` as a child and hands on its log lines as events."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import yaml

from tidemark.errors import TidemarkError
from tidemark.pipeline.events import Event, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tidemark.project import Project

# Meltano ends its tap and target within this; a second Ctrl-C does not wait
_STOP_S = 30


@contextmanager
def run(project: Project, blocks: Sequence[str], *, run_id: str, inherit: int) -> Iterator[Iterator[Event]]:
    """Start `meltano run` of `blocks` and yield its events; on leaving, the child has ended.

    Args:
        run_id: a UUID that all log lines carry.
        inherit: a descriptor that the child keeps open: the lock that must last as long as it runs.

    Raises:
        TidemarkError: Meltano is not installed.
    """
    if not project.meltano.exists():
        raise TidemarkError(f"Meltano is not installed at {project.meltano}; run `make setup`.")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="tidemark-logging-") as config:
        yaml.safe_dump(_logging_as_json(project), config)
        config.flush()
        child = subprocess.Popen(
            [project.meltano, f"--log-config={config.name}", "run", f"--run-id={run_id}", *blocks],
            cwd=project.root,
            # the pipeline's own lock keeps two runs apart; without this, a run that was killed would have Meltano
            # refuse the next for five minutes
            env={**os.environ, "MELTANO_RUN_FORCE": "1", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=[inherit],
        )
        assert child.stderr
        try:
            events = _events(child.stderr)
            yield events
            # a child whose pipe nobody empties would never end
            for _ in events:
                pass
            child.wait()
        except BaseException:
            _stop(child)
            raise


def _events(lines: IO[str]) -> Iterator[Event]:
    for line in lines:
        if event := parse(line):
            yield event


def _logging_as_json(project: Project) -> dict[str, object]:
    """Return the project's logging configuration, its console as JSON lines in place of text for people."""
    path = project.root / "logging.yaml"
    if not path.is_file():
        raise TidemarkError(f"{path} is missing; restore it with git.")
    config: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(Path(path).read_text())
    config["handlers"]["console"]["formatter"] = "json"
    return dict(config)


def _stop(child: subprocess.Popen[str]) -> None:
    """End Meltano and, through it, its plugins; whatever happens, leave none behind."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
