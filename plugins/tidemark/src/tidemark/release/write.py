"""Writes what a release brings into a project's directory."""

from __future__ import annotations

import os
from pathlib import Path

from tidemark.release import contents, definitions

# the version of Tidemark that a project which `tidemark init` made runs on; a clone has none
VERSION_FILE = ".tidemark-version"


def is_clone(root: Path) -> bool:
    """Return whether the project is a clone, whose files git merges."""
    return (root / "plugins" / "tidemark" / "pyproject.toml").is_file()


def files(root: Path) -> dict[str, str]:
    """Return what a project's generated files must have, by path: all that a release writes there.

    In a clone, these are the definitions of the plugins: everything else that a release ships is in git as it is.

    Raises:
        OSError: the project has no `.tidemark-version`.
    """
    if is_clone(root):
        return definitions.lock_files(definitions.from_source)
    version = (root / VERSION_FILE).read_text(encoding="utf-8").strip()
    shipped = {name: file.read_text(encoding="utf-8") for name, file in contents.written(contents.root())}
    return shipped | definitions.lock_files(definitions.from_wheels(version))


def changed(root: Path) -> list[str]:
    """Return the paths of generated files that are missing, or that differ from what this release gives."""
    return [name for name, text in files(root).items() if _text(root / name) != text]


def write(root: Path) -> list[str]:
    """Write the generated files that differ from what this release gives. Return their paths."""
    wanted, names = files(root), changed(root)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.write_text(wanted[name], encoding="utf-8")
        # what runs meanwhile reads the whole old file or the whole new one
        new.replace(path)
    return names


def link(root: Path) -> None:
    """Link the directories that stay in the installed package. A directory of the user's own is left alone."""
    at = Path(str(contents.root()))
    for name in contents.LINKED:
        path, target = root / name, os.path.relpath(at / name, (root / name).parent)
        if path.is_symlink() and str(path.readlink()) != target:
            path.unlink()
        if not path.is_symlink() and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target, target_is_directory=True)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
