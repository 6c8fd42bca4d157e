"""Helpers for tests of backups."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from tidemark.backup.manifest import Manifest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout


def backups(project: Checkout) -> Path:
    return project.root / ".tidemark" / "backups"


def back_up(project: Checkout, *options: str) -> Path:
    """Make a backup; return its directory."""
    before = set(backups(project).glob("*")) if backups(project).exists() else set()
    project.tidemark("backup", *options)
    (made,) = {path for path in backups(project).glob("tidemark-*") if path.suffix != ".partial"} - before
    return made


def newest(project: Checkout) -> Path:
    """Return the latest backup, whichever test made it."""
    there = sorted(path for path in backups(project).glob("tidemark-2*") if path.suffix != ".partial")
    return there[-1] if there else back_up(project)


def copy(backup: Path, name: str, edit: Callable[[dict[str, Any]], object] = dict) -> Path:
    """Copy a backup under another name, and edit the copy's manifest."""
    shutil.copytree(backup, backup.with_name(name))
    manifest = {**json.loads((backup / "manifest.json").read_text())["manifest"], "name": name}
    edit(manifest)
    backup.with_name(name).joinpath("manifest.json").write_text(Manifest.model_validate(manifest).signed())
    return backup.with_name(name)


def listed(project: Checkout, *options: str) -> dict[str, bool]:
    """Return each backup's name, and whether it is good."""
    return {each["name"]: each["good"] for each in json.loads(project.tidemark("backup", "list", "--json", *options))}


def change(project: Checkout, statement: str) -> None:
    with project.connect("source") as connection:
        connection.execute(statement)


@contextmanager
def locked(project: Checkout, table: str, mode: str) -> Iterator[None]:
    with psycopg.connect(project.tidemark("dsn", "warehouse").strip()) as connection:
        connection.execute(f"lock table {table} in {mode} mode")
        yield
        connection.rollback()


def waiting(project: Checkout, table: str) -> bool:
    return bool(project.rows("warehouse", f"select from pg_locks where not granted and relation = '{table}'::regclass"))


def assert_well(process: subprocess.Popen[str]) -> None:
    """Wait until a process ends, and check that it succeeded."""
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
