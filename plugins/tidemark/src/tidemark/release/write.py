"""Writes what a release brings into a project's directory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tidemark.release import contents, definitions

# the version of Tidemark that a project which `tidemark init` made runs on; a clone has none
VERSION_FILE = ".tidemark-version"
# the files that the release of that version wrote, each with its hash, so that the next one knows which it may remove
RECORD = ".tidemark-files"
_RECORD_HEAD = (
    "# What Tidemark wrote into this project: an upgrade removes what a release no longer has. Commit this file.\n"
)


class Written(NamedTuple):
    """What was done to a project's generated files.

    Attributes:
        written: those that differed from what this release gives.
        removed: those of an earlier release that this one does not have.
        kept: such files that somebody edited.
    """

    written: list[str]
    removed: list[str]
    kept: list[str]

    def notes(self) -> list[str]:
        """Return a line for each file that this release does not have."""
        gone = [f"Removed {name}, which this release does not have." for name in self.removed]
        return gone + [
            f"Kept {name}, which this release does not have, because somebody edited it: it is yours now, delete it or "
            "keep it."
            for name in self.kept
        ]


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
    shipped |= definitions.lock_files(definitions.from_wheels(version))
    return shipped | {RECORD: _record(shipped)}


def changed(root: Path) -> list[str]:
    """Return the paths of generated files that are missing, or that differ from what this release gives."""
    return [name for name, text in files(root).items() if _text(root / name) != text]


def write(root: Path) -> Written:
    """Write the generated files that differ from what this release gives, and remove what it no longer has.

    A file is removed only if an earlier release wrote it, and nobody changed it since.
    """
    wanted, names = files(root), changed(root)
    removed, kept = _remove_others(root, wanted)
    # the record last: if this is interrupted, the next time finds the old one
    for name in sorted(names, key=lambda each: each == RECORD):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.write_text(wanted[name], encoding="utf-8")
        # what runs meanwhile reads the whole old file or the whole new one
        new.replace(path)
    return Written(names, removed, kept)


def _record(shipped: dict[str, str]) -> str:
    return _RECORD_HEAD + "".join(f"{_sha256(text)}  {name}\n" for name, text in sorted(shipped.items()))


def _remove_others(root: Path, wanted: dict[str, str]) -> tuple[list[str], list[str]]:
    """Remove recorded files that are not wanted. Return their paths, and those of files that somebody edited."""
    removed, kept = [], []
    for line in (_text(root / RECORD) or "").splitlines():
        digest, _, name = line.partition("  ")
        path = root / name
        # whatever the record says, nothing outside of the project, and nothing behind a link, is a file of a release
        if name in wanted or not _is_plain(root, name) or not path.is_file():
            continue
        text = _text(path)
        if text is None or _sha256(text) != digest:
            kept.append(name)
            continue
        path.unlink()
        removed.append(name)
        for parent in path.relative_to(root).parents:
            if not parent.parts or any((root / parent).iterdir()):
                break
            (root / parent).rmdir()
    return removed, kept


def _is_plain(root: Path, name: str) -> bool:
    """Return whether a path is one in the project, without a link on its way."""
    path = PurePosixPath(name)
    is_below = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return is_below and (root / name).resolve() == root.resolve() / name


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
