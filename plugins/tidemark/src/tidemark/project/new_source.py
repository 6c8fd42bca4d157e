"""Adds a source to the project: a file with its tap, a file with its target, its variables, and its place in jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.project import dotenv_file, sources, variables, yaml_edits, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.yaml_files import ProjectFiles

# the jobs that load all sources
JOBS = ("sync", "sync-and-transform")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_LONGEST = 40
# words that mean something else where a source may be named
_RESERVED = {"source", "warehouse", "airflow", "both", "all", "tidemark", "dbt", sources.FIRST}
_TAP = """\
# The source {name}. Its connection comes from {prefix}_HOST, _PORT, _USER, _PASSWORD and _DATABASE.
# plugins/extractors/tap-postgres--bare.lock lists every setting that `config` can hold here.
plugins:
  extractors:
    - name: tap-{name}
      inherit_from: tap-postgres
      variant: bare
      # The streams to read, as SCHEMA-TABLE.*
      select: []
      # A stream that is not named here is read in full in each run.
      metadata: {{}}
"""
_TARGET = """\
# The schema of the source {name} in the warehouse. The warehouse itself is that of target-postgres.
plugins:
  loaders:
    - name: target-{name}
      inherit_from: target-postgres
      config:
        default_target_schema: {schema}
"""


@dataclass(frozen=True)
class NewSource:
    """A source to add.

    Attributes:
        schema: the warehouse's schema for its tables.
        connection: its connection, by the ends of its variables, such as HOST.
    """

    name: str
    schema: str
    connection: dict[str, str] = field(default_factory=dict)

    @property
    def tap(self) -> str:
        """The name of its tap."""
        return f"tap-{self.name}"

    @property
    def prefix(self) -> str:
        """What its variables begin with."""
        return sources.prefix(self.tap)

    @property
    def files(self) -> dict[str, str]:
        """The texts of its files, by their paths in the project."""
        return {
            f"extract/{self.name}.meltano.yml": _TAP.format(name=self.name, prefix=self.prefix),
            f"load/{self.name}.meltano.yml": _TARGET.format(name=self.name, schema=self.schema),
        }


def raw_schema(name: str) -> str:
    """Return the schema of a source whose user names none.

    >>> raw_schema("crm-eu")
    'raw_crm_eu'
    """
    return f"raw_{name.replace('-', '_')}"


def refuse(project: Project, new: NewSource) -> None:
    """Raise if the source can't be added.

    Raises:
        UsageError: see the messages.
    """
    if not _NAME.fullmatch(new.name) or len(new.name) > _LONGEST or new.name in _RESERVED - {sources.FIRST}:
        raise UsageError(
            f"A source can't be called {new.name!r}: use up to {_LONGEST} of a-z, 0-9, _ and -, the first a letter, "
            f"and none of {', '.join(sorted(_RESERVED))}."
        )
    files = yaml_files.read(project)
    found, _ = sources.read_with_faults(project)
    _refuse_second(project, new, files, found)
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", new.schema):
        raise UsageError(f"--schema is {new.schema!r}; use up to 63 of a-z, 0-9 and _, the first not a digit.")
    for other in found:
        if other.raw_schema == new.schema:
            raise UsageError(f"Source {other.name} loads into schema {new.schema} already; name another with --schema.")
        if other.prefix == new.prefix:
            raise UsageError(f"Source {other.name} has the variables {new.prefix}_… already; choose another name.")
    included = [str(pattern) for pattern in (files.documents[0].get("include_paths") or () if files.documents else ())]
    for path in new.files:
        if not any(PurePath(path).match(pattern) for pattern in included):
            raise UsageError(f"meltano.yml does not include {path}; add {PurePath(path).parent}/*.meltano.yml to it.")


def _refuse_second(
    project: Project, new: NewSource, files: ProjectFiles, found: list[sources.SourceDefinition]
) -> None:
    if one := next((source for source in found if source.name == new.name), None):
        back = f"delete its `annotations` and add `{one.blocks}` to the jobs to take it back"
        since = f"; it was retired on {one.retired}: {back}" if one.retired else ""
        raise UsageError(
            f"Source {new.name} exists already: {one.tap} in {one.path}, {one.target}, schema {one.raw_schema}{since}."
        )
    if new.name == sources.FIRST:
        raise UsageError(f"The name {new.name} is that of the first source, which has tap-postgres; choose another.")
    # an addition that was killed may have written one of the files
    there = {path: (project.root / path).read_text() for path in new.files if (project.root / path).exists()}
    kinds = ("extractors", new.tap), ("loaders", f"target-{new.name}")
    for (kind, name), (path, text) in zip(kinds, new.files.items(), strict=True):
        if there.get(path) == text:
            continue
        if files.plugin(kind, name):
            raise UsageError(f"The project has a plugin {name} already; choose another name.")
        if path in there:
            raise UsageError(f"{path} exists already; choose another name, or delete it.")


def add(project: Project, new: NewSource) -> Iterator[str]:
    """Add the source, and yield each change in words. Call `refuse` first.

    Raises:
        UsageError: a file can't be written.
    """
    values = {f"{new.prefix}_{end}": value for end, value in new.connection.items()}
    if values:
        dotenv_file.write(project.dotenv, values, instead="set them in the environment")
        yield f".env: {', '.join(values)}"
    # the tap last: with it, the source exists
    for name, text in reversed(new.files.items()):
        try:
            (project.root / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{name} can't be written: {error.strerror}; correct that, then run this again.") from None
        yield f"{name}: written"
    yield from add_to_jobs(project, f"{new.tap} target-{new.name}")


def add_to_jobs(project: Project, load: str) -> Iterator[str]:
    """Add a load, such as `tap-crm target-crm`, to the jobs that load all sources, and yield each change in words.

    Raises:
        UsageError: a file can't be written.
    """
    changed = [(path, job) for path, job in _jobs(project) if yaml_edits.add_load(path, job, load)]
    for path in dict.fromkeys(path for path, _ in changed):
        jobs = " and ".join(job for each, job in changed if each == path)
        yield f"{path.relative_to(project.root)}: `{load}` in {jobs}"


def _jobs(project: Project) -> Iterator[tuple[Path, str]]:
    """Yield the jobs that load all sources, each with its file."""
    files = yaml_files.read(project)
    for document, path in zip(files.documents, files.paths, strict=True):
        for job in document.get("jobs") or ():
            if job.get("name") in JOBS:
                yield path, job["name"]


def jobs_without(project: Project, load: str) -> list[str]:
    """Return the jobs that load all sources and lack this load."""
    tasks = {
        job["name"]: job.get("tasks") or ()
        for document in yaml_files.read(project).documents
        for job in document.get("jobs") or ()
        if job.get("name") in JOBS
    }
    return [name for name, each in tasks.items() if not any(load in str(task) for task in each)]


def missing_variables(project: Project, new: NewSource) -> list[str]:
    """Return the variables of the address that are not set yet."""
    there = variables.read(project)
    return [name for end in ("HOST", "DATABASE") if (name := f"{new.prefix}_{end}") not in there]
