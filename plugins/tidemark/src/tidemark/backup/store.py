"""The place where backups are kept: a directory, or anything that fsspec has a driver for.

A backup is a directory with a name of ours that contains a manifest. On a local disk it has another name until it is
complete; elsewhere its manifest is written last. So an interrupted backup never counts as one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from singer_postgres.core.errors import one_line
from tidemark.backup.manifest import FILE, PARTIAL, File, Manifest, began
from tidemark.errors import BackupError, TidemarkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CHUNK = 2**20


class BackupStore:
    """A directory of backups."""

    def __init__(self, url: str) -> None:
        """Parse the URL. Nothing is created yet.

        Raises:
            UsageError: there is no driver for the URL.
        """
        self._secret = re.match(r"^[\w+.-]+://([^/@]+)@", url)
        self.name = re.sub(r"//[^/@]+@", "//", url)
        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"Backups can't be kept at {self.name}: {self._shown(error)}; install its driver beside Tidemark "
                "(s3fs, gcsfs, adlfs, …), or name a directory."
            ) from error
        self._root = str(root).rstrip("/")

    @property
    def directory(self) -> Path | None:
        """The directory, if it is on this machine."""
        return Path(self._root) if isinstance(self._files, LocalFileSystem) else None

    def prepare(self) -> None:
        """Create the directory, unless it exists.

        Raises:
            UsageError: it can't be created or written.
        """
        try:
            self._files.makedirs(self._root, exist_ok=True)
        except Exception as error:
            raise UsageError(
                f"Backups can't be kept at {self.name}: {self._shown(error)}; name another place (--to, or "
                "TIDEMARK_BACKUP_TO)."
            ) from error
        if self.directory and not os.access(self.directory, os.W_OK | os.X_OK):
            raise UsageError(f"Backups can't be kept at {self.name}: user {os.geteuid()} may not write there.")

    def backups(self) -> list[str]:
        """Return the names of complete backups, the oldest first."""
        return sorted(name for name in self._names() if began(name) and self._has(name, FILE))

    def unfinished(self) -> list[str]:
        """Return the names of incomplete backups of ours."""
        complete = set(self.backups())
        return sorted(name for name in self._names() if began(name.removesuffix(PARTIAL)) and name not in complete)

    def find(self, name: str) -> str:
        """Return the name of a backup. `latest` names the newest.

        Raises:
            UsageError: there is no such backup.
        """
        found = self.backups()
        if name == "latest" and found:
            return found[-1]
        if name in found:
            return name
        there = f"the latest is {found[-1]}; see `tidemark backup list`" if found else "it has no backups"
        raise UsageError(f"There is no backup {name} at {self.name}: {there}.")

    def manifest(self, name: str) -> Manifest:
        """Read the manifest of a backup.

        Raises:
            TidemarkError: the manifest was changed.
        """
        with self._told("read"):
            text: bytes = self._files.cat_file(f"{self._root}/{name}/{FILE}")
        return Manifest.parse(text, name)

    def missing(self, manifest: Manifest) -> list[str]:
        """Return the files that are missing or have another size. This reads no file."""
        top = f"{self._root}/{manifest.name}"
        with self._told("read"):
            self._files.invalidate_cache()
            there = {
                path.removeprefix(self._files._strip_protocol(top)).lstrip("/"): info["size"]  # noqa: SLF001 - as fsspec's own code does
                for path, info in self._files.find(top, detail=True).items()
            }
        return [name for name, file in sorted(manifest.files.items()) if there.get(name) != file.size]

    def verify(self, manifest: Manifest, into: Path | None = None) -> Path | None:
        """Read each file and check that it is unchanged.

        Args:
            into: an empty directory to copy the files into.

        Returns:
            The files' directory on this machine, if there is one.

        Raises:
            TidemarkError: a file was changed, or is missing.
        """
        for name, file in sorted(manifest.files.items()):
            digest = hashlib.sha256()
            with self._told("read"), self._files.open(f"{self._root}/{manifest.name}/{name}", "rb") as source:
                copy = None
                if into:
                    (into / name).parent.mkdir(parents=True, exist_ok=True)
                    copy = (into / name).open("wb")
                try:
                    while block := source.read(_CHUNK):
                        digest.update(block)
                        if copy:
                            copy.write(block)
                finally:
                    if copy:
                        copy.close()
            if digest.hexdigest() != file.sha256:
                raise BackupError(
                    f"{name} of backup {manifest.name} was changed (its sha256 differs), so the backup is not used; "
                    "choose another one: `tidemark backup list`."
                )
        return into or (self.directory and self.directory / manifest.name)

    @contextmanager
    def writing(self, name: str, scratch: Path) -> Iterator[Path]:
        """Yield an empty directory for a backup's files. If the block ends without an error, the backup is complete.

        Args:
            name: the backup's name.
            scratch: a directory to work in, if the place is not on this machine.
        """
        local = self.directory
        directory = local / f"{name}{PARTIAL}" if local else scratch / name
        directory.mkdir(parents=True, mode=0o700)
        try:
            yield directory
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        with self._told("written"):
            _sync(directory)
            if local:
                directory.rename(local / name)
                _sync_directory(local)
            else:
                self._upload(directory, name)

    def put_note(self, file: str, content: Mapping[str, Any]) -> None:
        """Write a small JSON file beside the backups.

        Raises:
            BackupError: it can't be written.
        """
        with self._told("written"):
            self._files.pipe_file(f"{self._root}/{file}", json.dumps(content).encode())

    def note(self, file: str) -> dict[str, Any] | None:
        """Return what `put_note` wrote; None if there is no such file.

        Raises:
            BackupError: it can't be read.
        """
        if not self._has("", file):
            return None
        with self._told("read"):
            found: dict[str, Any] = json.loads(self._files.cat_file(f"{self._root}/{file}"))
        return found

    def remove(self, name: str) -> None:
        """Delete a backup, complete or not."""
        with self._told("removed"):
            # the manifest goes first, so that a half-deleted backup doesn't count as one
            if self._has(name, FILE):
                self._files.rm_file(f"{self._root}/{name}/{FILE}")
            self._files.rm(f"{self._root}/{name}", recursive=True)

    def _upload(self, directory: Path, name: str) -> None:
        paths = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
        paths.sort(key=lambda path: str(path) == FILE)
        for path in paths:
            there = f"{self._root}/{name}/{path.as_posix()}"
            self._files.makedirs(there.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(directory / path), there)

    def _names(self) -> list[str]:
        with self._told("read"):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def _has(self, name: str, file: str) -> bool:
        with self._told("read"):
            return bool(self._files.exists("/".join(filter(None, (self._root, name, file)))))

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except TidemarkError:
            raise
        except Exception as error:
            # each driver has its own errors
            raise BackupError(f"Backups at {self.name} can't be {done}: {self._shown(error)}.") from error

    def _shown(self, error: Exception) -> str:
        text = one_line(error).rstrip(".")
        return text.replace(self._secret[1], "…") if self._secret else text


def file(path: Path) -> File:
    """Return the manifest's entry for a file."""
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    return File(size=path.stat().st_size, sha256=digest.hexdigest())


def _sync(directory: Path) -> None:
    """Write all files to the disk, with their names."""
    for path in (*directory.rglob("*"), directory):
        if path.is_dir():
            _sync_directory(path)
        else:
            with path.open("rb") as content:
                os.fsync(content.fileno())


def _sync_directory(path: Path) -> None:
    descriptor: Any = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
