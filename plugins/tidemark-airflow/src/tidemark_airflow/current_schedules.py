"""Finds the current schedules: those of the last time, or if a file of Meltano's changed since, `tidemark schedules`.

A DAG file should do no work when Airflow parses it. Usually this reads a few small files; only after an edit does it
start a program, once.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from tidemark_airflow.schedules import parse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tidemark_airflow.schedules import Export

# shorter than Airflow's limit for a DAG file, 30 s
_TIMEOUT_S = 25


def read(root: Path) -> Export:
    """Return the schedules of a project.

    Raises:
        ValueError: Meltano can't read its files; the message says why.
    """
    kept = root / "orchestrate" / "schedules.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        text = kept.read_text(encoding="utf-8")
        made_from = json.loads(text)["made_from"]
        if made_from["digest"] == _digest(root, made_from["paths"]):
            return parse(text)
    return parse(_ask(root))


def _ask(root: Path) -> str:
    """Return what `tidemark schedules` prints; it writes the file again, too."""
    done = subprocess.run(
        [root / ".venv" / "bin" / "tidemark", "schedules"],
        cwd=root,
        env={**os.environ, "MELTANO_PROJECT_ROOT": str(root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ValueError(said[-1] if said else f"`tidemark schedules` ended with status {done.returncode}.")
    return done.stdout


def _digest(root: Path, paths: Iterable[str]) -> str:
    """Return a digest of names and contents of the files that these patterns match."""
    found = hashlib.sha256()
    for path in sorted({path for pattern in paths for path in root.glob(pattern) if path.is_file()}):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root)} {len(content)} ".encode())
        found.update(content)
    return found.hexdigest()
