"""Writes a source's files, and says what it did. What a person edited stays, and is shown with the difference.

A run that is killed while it writes leaves files that are each old or new. The manifest has both hashes by then, so the
next run completes the work and takes no file for an edited one.
"""

from __future__ import annotations

import difflib
import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from tidemark.errors import TidemarkError, UsageError
from tidemark.onboard import existing_files, generated, manifest_diff
from tidemark.onboard.generated import MODELS, Generated, Options
from tidemark.onboard.manifest import KnownFile, Manifest, sha256
from tidemark.onboard.proposal import Method
from tidemark.onboard.staged_columns import dbt_source
from tidemark.project import file_locks
from tidemark.project.onboarded import manifest_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tidemark.onboard.manifest_diff import TableChange
    from tidemark.onboard.proposal import Proposal
    from tidemark.project.directory import Project

_TEMPORARY = ".onboarding"


class Status(StrEnum):
    """What happens to a file.

    `edited` and `foreign` files are never touched: a person changed or removed the one, and the other was there before.
    """

    created = "created"
    changed = "changed"
    unchanged = "unchanged"
    edited = "edited"
    foreign = "foreign"
    gone = "gone"
    removed = "removed"


# what is on disk is not what would be written
_LEFT_ALONE = frozenset({Status.edited, Status.foreign})


@dataclass(frozen=True)
class WrittenFile:
    """A file and what happens to it.

    Attributes:
        diff: from what is there to what would be written, as a unified diff; empty if they are equal.
        stream: the stream that it belongs to; None if it belongs to the whole source.
    """

    path: str
    status: Status
    diff: str = ""
    stream: str | None = None


@dataclass(frozen=True)
class Written:
    """What was written, or what would be.

    Attributes:
        tables: how the source's tables changed since the last time.
        notes: what was left out, in words.
        manifest_changes: the file of hashes changes, too.
    """

    files: tuple[WrittenFile, ...]
    tables: tuple[TableChange, ...] = ()
    notes: tuple[str, ...] = ()
    manifest_changes: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything changes; for CI, with `dry_run`."""
        writes = {Status.created, Status.changed, Status.removed}
        return self.manifest_changes or any(each.status in writes for each in self.files)

    def with_status(self, *statuses: Status) -> list[WrittenFile]:
        """Return the files with one of these statuses."""
        return [each for each in self.files if each.status in statuses]


def write(
    project: Project,
    proposal: Proposal,
    *,
    options: Options | None = None,
    dry_run: bool = False,
    remove_gone: bool = False,
) -> Written:
    """Write a source's files.

    Args:
        proposal: all tables of the source. One that it does not have is gone.
        dry_run: only say what would be done.
        remove_gone: delete the files of tables that are no longer read, unless a person edited them.

    Raises:
        UsageError: two tables have the same name in the warehouse, or the project has a model of that name elsewhere.
        BusyError: another process writes a source's files.
        TidemarkError: a file can't be written.
    """
    lock = file_locks.hold(project.state_dir / "onboard.lock", doing="writing the files of a source")
    with nullcontext() if dry_run else lock:
        path = manifest_path(project, proposal.source)
        before = Manifest.read(path)
        content = _generate(project, proposal, options or Options(), before, remove_gone=remove_gone)
        files = list(_compare(project, content, before, remove_gone=remove_gone))
        after = replace(
            _manifest(content, files, before),
            left_out=proposal.left_out_by_choice,
            not_read=tuple(
                each.table.stream
                for each in proposal.tables
                if each.method is Method.left_out
                and not each.by_edited_file
                and each.table.stream not in proposal.left_out_by_choice
            ),
            schemas=proposal.schemas,
            marts_enabled=bool(options and options.marts == "enabled"),
            timezone=proposal.timestamp_timezone if proposal.timezone_is_chosen else None,
            declined=_declined(proposal, before),
        )
        tables = tuple(manifest_diff.compare(before.tables, after.tables))
        if not dry_run:
            try:
                _apply(project, before, after, files, content.files, path)
            except OSError as error:
                raise TidemarkError(
                    f"{error.filename or path} can't be written: {error.strerror}; run this again once it can."
                ) from error
        return Written(tuple(files), tables, content.notes, before.text() != after.text())


def _declined(proposal: Proposal, before: Manifest) -> dict[str, str]:
    """Return what a person said no to: now, or earlier of tables that are not looked at now."""
    looked_at = {each.table.stream for each in proposal.tables}
    kept = {name: key for name, key in before.declined.items() if name in proposal.all_streams - looked_at}
    return kept | {each.table.stream: each.declined for each in proposal.tables if each.declined}


def _generate(
    project: Project, proposal: Proposal, options: Options, before: Manifest, *, remove_gone: bool
) -> Generated:
    read = {each.table.stream for each in proposal.read}
    models = {each.model for each in proposal.read}
    kept = []
    for stream, table in before.tables.items():
        model = generated.staging_path(proposal.source, table.model)
        text = _read(project.root / model)
        # its source stays described as long as its model reads it
        is_left = stream not in read and table.model not in models and text is not None
        if is_left and not (remove_gone and before.wrote(model, text or "")):
            kept.append(stream)
    content = generated.generate(proposal, options, before, kept=kept, described=_described(project, proposal))
    _refuse_models_elsewhere(project, content, before)
    old = {stream: replace(before.tables[stream], gone=True) for stream in kept}
    content = existing_files.extend(project, content, proposal, options, before)
    return replace(content, tables={**content.tables, **old})


def _described(project: Project, proposal: Proposal) -> set[str]:
    """Return the raw schemas whose record of runs a file of somebody else describes, such as the demo's."""
    import yaml  # noqa: PLC0415

    own = project.root / MODELS / "staging" / proposal.source
    schemas = {dbt_source(schema): schema for schema in (proposal.raw_schema, *proposal.pairs.values())}
    found = set()
    for path in sorted((project.root / MODELS).rglob("*sources.yml")):
        text = path.read_text()
        if path.parent == own or "_tidemark_runs" not in text:
            continue
        with suppress(yaml.YAMLError, AttributeError, TypeError, KeyError):
            for source in yaml.safe_load(text)["sources"]:
                if any(table["name"] == "_tidemark_runs" for table in source["tables"]):
                    found.add(schemas.get(source["name"], ""))
    return found


def _refuse_models_elsewhere(project: Project, content: Generated, before: Manifest) -> None:
    """Refuse a name that another model of the project has: dbt would refuse the whole project."""
    ours = {*content.files, *before.files, *before.writing}
    there = {
        path.stem: name
        for path in (project.root / MODELS).rglob("*.sql")
        if (name := path.relative_to(project.root).as_posix()) not in ours
    }
    for path in content.files:
        stem = path.rpartition("/")[2].removesuffix(".sql")
        if path.endswith(".sql") and stem in there:
            raise UsageError(
                f"{there[stem]} is a model of the name that {path} needs; rename it, or leave that table out."
            )


def _read(path: Path) -> str | None:
    """Return a file's text; None if there is no file."""
    try:
        return path.read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _compare(project: Project, content: Generated, before: Manifest, *, remove_gone: bool) -> Iterator[WrittenFile]:
    for path, text in content.files.items():
        stream = content.streams.get(path)
        there = _read(project.root / path)
        status = _status(path, text, there, before)
        if path in content.may_change and status in _LEFT_ALONE and there is not None:
            status = Status.changed
        yield WrittenFile(path, status, "" if status is Status.unchanged else _diff(path, there, text), stream)
    for path in sorted({*before.files, *before.writing} - content.files.keys()):
        there = _read(project.root / path)
        if there is None:
            continue
        stream = before.stream_of(path)
        if not before.wrote(path, there):
            yield WrittenFile(path, Status.edited, _diff(path, there, None), stream)
        else:
            yield WrittenFile(path, Status.removed if remove_gone else Status.gone, _diff(path, there, None), stream)


def _status(path: str, text: str, there: str | None, before: Manifest) -> Status:
    if there is None:
        # a person deleted it, unless a run was killed before it created it
        return Status.edited if path in before.files else Status.created
    if there == text:
        return Status.unchanged
    if before.wrote(path, there):
        return Status.changed
    return Status.edited if path in before.files else Status.foreign


def _diff(path: str, there: str | None, text: str | None) -> str:
    old = "/dev/null" if there is None else f"a/{path}"
    new = "/dev/null" if text is None else f"b/{path}"
    lines = [(side or "").splitlines(keepends=True) for side in (there, text)]
    return "".join(difflib.unified_diff(lines[0], lines[1], old, new))


def _manifest(content: Generated, files: list[WrittenFile], before: Manifest) -> Manifest:
    known = {}
    for each in files:
        if each.path in content.extended:
            continue
        if each.status in {Status.created, Status.changed, Status.unchanged}:
            known[each.path] = KnownFile(sha256(content.files[each.path]), each.stream)
        elif each.path in before.files and each.status is not Status.removed:
            # an edited file keeps the hash of what was written last
            known[each.path] = before.files[each.path]
        elif each.path in before.writing and each.status is Status.gone:
            known[each.path] = before.writing[each.path]
    return Manifest(content.tables, known, content.star)


def _apply(  # noqa: PLR0913, PLR0917 - each argument has a name
    project: Project,
    before: Manifest,
    after: Manifest,
    files: list[WrittenFile],
    texts: Mapping[str, str],
    manifest: Path,
) -> None:
    written = [each.path for each in files if each.status in {Status.created, Status.changed}]
    removed = [project.root / each.path for each in files if each.status is Status.removed]
    # a run that was killed may have left some
    for path in (manifest, *(project.root / name for name in {*texts, *before.files, *before.writing})):
        _temporary(path).unlink(missing_ok=True)
    if not written and not removed and before.text() == after.text():
        return
    try:
        for name in written:
            (project.root / name).parent.mkdir(parents=True, exist_ok=True)
            _store(_temporary(project.root / name), texts[name])
        # from here on, a file with its new text counts as ours, also if this process is killed
        journal = replace(
            before, writing={**before.writing, **{name: after.files[name] for name in written if name in after.files}}
        )
        _replace(manifest, journal.text())
        for name in written:
            _temporary(project.root / name).replace(project.root / name)
    finally:
        for name in written:
            _temporary(project.root / name).unlink(missing_ok=True)
    for path in removed:
        path.unlink(missing_ok=True)
        # the folder, if nothing is left in it
        with suppress(OSError):
            path.parent.rmdir()
    _replace(manifest, after.text())


def _temporary(path: Path) -> Path:
    # neither Meltano nor dbt reads a file of that name
    return path.with_name(f".{path.name}{_TEMPORARY}")


def _store(path: Path, text: str) -> None:
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _store(_temporary(path), text)
    _temporary(path).replace(path)
