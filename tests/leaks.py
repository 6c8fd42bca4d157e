"""Finds a project's secrets, which belong in .env and nowhere else."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dotenv import dotenv_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# installed files, which no run writes
_INSTALLED = {"venv", ".venv"}


def secrets(root: Path) -> dict[str, str]:
    """Return the passwords and keys that were generated for a project, also as quoted in a URL."""
    kept = dotenv_values(root / ".env")
    return {
        name: value.rstrip("=")
        for name, value in kept.items()
        if value and name.endswith(("PASSWORD", "KEY", "SECRET"))
    }


def in_text(hidden: Mapping[str, str], text: str) -> list[str]:
    """Return the names of the secrets in a text."""
    return [name for name, value in hidden.items() if value in text]


def in_files(hidden: Mapping[str, str], root: Path, directories: Iterable[str]) -> list[str]:
    """Return each secret with its file, for files below these directories of a project."""
    found = []
    for directory in directories:
        assert (root / directory).is_dir(), directory
        for path in (root / directory).rglob("*"):
            # running servers remove their files
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not _INSTALLED & {*path.parts}:
                    content = path.read_bytes()
                    names = [name for name, value in hidden.items() if value.encode() in content]
                    found += [f"{name} in {path.relative_to(root)}" for name in names]
    return found


def talkative(root: Path) -> dict[str, str]:
    """Set every program of a project to its most verbose log; return the variables for that."""
    logging = root / "logging.yaml"
    logging.write_text(logging.read_text().replace("level: INFO", "level: DEBUG"))
    return {"TAP_POSTGRES_LOGLEVEL": "DEBUG", "TARGET_POSTGRES_LOGLEVEL": "DEBUG", "DBT_LOG_LEVEL": "debug"}
