"""The sources of the project: each is a tap of ours with its target, and its name is the tap's without `tap-`.

This reads only the project's YAML and variables. `database_settings` knows how to connect to a source.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tidemark.errors import UsageError
from tidemark.project import resolved_settings, variables, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.yaml_files import ProjectFiles

TAP, TARGET = "tap-postgres", "target-postgres"
FIRST = TAP.removeprefix("tap-")
# the only source that a command of ours looks at, as `tidemark run --source` tells it through Meltano
ONLY = "TIDEMARK_ONLY_SOURCE"
_SCHEMA = "default_target_schema"
_EXTRACTORS, _LOADERS = "extractors", "loaders"
# settings of a connection, as the ends of their variables
_CONNECTION = ("HOST", "PORT", "USER", "PASSWORD", "DATABASE", "SSL_ENABLE", "SSL_MODE", "SSL_CERTIFICATE_AUTHORITY")
_ENDS = re.compile(rf"TAP_\w+?_({'|'.join(_CONNECTION)})$")
_REFERENCE = re.compile(r"\$\{?(TAP_\w+)")


@dataclass(frozen=True)
class SourceDefinition:
    """A source as the project's YAML defines it.

    Attributes:
        raw_schema: the warehouse's schema that the target loads it into.
        path: the file with its tap, relative to the project.
        retired: the day when it was given up; None if it is in use.
        retired_streams: its streams that were given up.
        alone: no other source is in use, so its streams need no name of a source.
        pair_of: the source whose database it reads too: that one has tables of the same names in another schema.
    """

    name: str
    tap: str = TAP
    target: str = TARGET
    raw_schema: str = "raw"
    path: str = "extract/extractors.meltano.yml"
    retired: str | None = None
    retired_streams: frozenset[str] = frozenset()
    alone: bool = True
    pair_of: str | None = None

    @property
    def first(self) -> bool:
        """Whether it is the source that may have an embedded server."""
        return self.tap == TAP

    @property
    def prefix(self) -> str:
        """What its variables begin with."""
        return prefix(self.tap)

    @property
    def blocks(self) -> str:
        """The arguments of `meltano run` that load it."""
        return f"{self.tap} {self.target}"

    def shown(self, stream: str) -> str:
        """Return a stream's name, with the source's if there are several."""
        return stream if self.alone else f"{self.name}/{stream}"


@dataclass(frozen=True)
class Fault:
    """A mistake in the definition of a source, in one line."""

    source: str
    what: str


def prefix(tap: str) -> str:
    """Return what the variables of a tap begin with.

    >>> prefix("tap-crm-eu")
    'TAP_CRM_EU'
    """
    return tap.upper().replace("-", "_")


def read(project: Project) -> list[SourceDefinition]:
    """Return all sources, the first one first and the others in the order of the files.

    Raises:
        UsageError: a source's definition has a mistake.
    """
    found, faults = read_with_faults(project)
    for fault in faults:
        raise UsageError(fault.what)
    return found


def active(project: Project) -> list[SourceDefinition]:
    """Return the sources that are in use.

    Raises:
        UsageError: a source's definition has a mistake.
    """
    return [source for source in read(project) if not source.retired]


def chosen(project: Project, name: str | None) -> list[SourceDefinition]:
    """Return the named source, or else all that are in use.

    Raises:
        UsageError: there is no such source, or none at all, or the definition of one that is meant has a mistake.
    """
    if name is not None:
        source = find(project, name)
        for fault in read_with_faults(project)[1]:
            if fault.source == name:
                raise UsageError(fault.what)
        return [source]
    if not (in_use := active(project)):
        raise UsageError("The project has no source; `tidemark source add NAME` makes one.")
    return in_use


def find(project: Project, name: str) -> SourceDefinition:
    """Return the source of a name.

    Raises:
        UsageError: there is no such source.
    """
    found, faults = read_with_faults(project)
    if one := next((source for source in found if source.name == name), None):
        return one
    for fault in faults:
        if fault.source == name:
            raise UsageError(fault.what)
    known = ", ".join(source.name for source in found) or "none"
    raise UsageError(f"There is no source {name!r}; the sources are {known}.")


def with_pairs(project: Project, source: SourceDefinition) -> list[SourceDefinition]:
    """Return a source and the pairs that read further schemas of its database, as far as they are in use."""
    found, _ = read_with_faults(project)
    return [source, *(each for each in found if each.pair_of == source.name and not each.retired)]


def of_blocks(project: Project, blocks: Iterable[str]) -> list[SourceDefinition]:
    """Return the sources that arguments of `meltano run` load. Mistakes of the others don't matter.

    Raises:
        UsageError: the definition of one of them has a mistake.
    """
    named = set(blocks)
    found, faults = read_with_faults(project)
    for fault in faults:
        if f"tap-{fault.source}" in named:
            raise UsageError(fault.what)
    return [source for source in found if source.tap in named]


def read_with_faults(project: Project) -> tuple[list[SourceDefinition], list[Fault]]:
    """Return all sources, and the mistakes in their definitions."""
    files = yaml_files.read(project)
    found: list[SourceDefinition] = []
    faults: list[Fault] = []
    for tap, path in sorted(_taps(files, project), key=lambda each: each[0]["name"] != TAP):
        name = tap["name"].removeprefix("tap-")
        marks = (tap.get("annotations") or {}).get("tidemark") or {}
        retired = str(marks["retired"]) if marks.get("retired") else None
        streams = frozenset(map(str, marks.get("retired_streams") or ()))
        source = SourceDefinition(
            name, tap["name"], path=path, retired=retired, retired_streams=streams, pair_of=marks.get("pair_of")
        )
        faults += _inherited(source, tap, files)
        if target := _target_of(tap["name"], files):
            found.append(replace(source, target=target, raw_schema=_raw_schema(project, target)))
        elif not source.retired:
            what = f"Source {name} has no target: add target-{name} to load/, or name both in one task of a job"
            faults.append(Fault(name, f"{what} (orchestrate/jobs.meltano.yml)."))
    faults += [fault for one, other in _pairs(found) for fault in _collisions(one, other)]
    in_use = [source for source in found if not source.retired]
    return [replace(source, alone=len(in_use) == 1 and not source.retired) for source in found], faults


def stray_variables(project: Project) -> Iterator[Fault]:
    """Yield each variable of a connection that looks like a tap's, and no extractor of the project has its name."""
    taps = [plugin["name"] for kind, plugin in yaml_files.read(project).plugins() if kind == _EXTRACTORS]
    prefixes = [f"{prefix(tap)}_" for tap in taps]
    if not prefixes:
        return
    for name in sorted(variables.read(project)):
        if (end := _ENDS.match(name)) and not name.startswith(tuple(prefixes)):
            known = [f"{each}{end[1]}" for each in prefixes]
            meant = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"; did you mean {meant[0]}?" if meant else f"; sources have {', '.join(known)}."
            yield Fault("", f"{name} is set, and no source has it{hint}")


def _taps(files: ProjectFiles, project: Project) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the taps that are ours, each with its file."""
    for document, path in zip(files.documents, files.paths, strict=True):
        for tap in (document.get("plugins") or {}).get(_EXTRACTORS) or ():
            if isinstance(tap, dict) and tap.get("name") and _root(tap, files) == TAP:
                yield tap, _relative(path, project)


def _relative(path: Path, project: Project) -> str:
    return str(path.relative_to(project.root))


def _root(tap: dict[str, Any], files: ProjectFiles) -> str:
    """Return the name of the definition that a tap has in the end."""
    seen: set[str] = set()
    while (parent := tap.get("inherit_from")) and tap["name"] not in seen:
        seen.add(tap["name"])
        above = {} if "variant" in tap else files.plugin(_EXTRACTORS, parent)
        if not above:
            return str(parent)
        tap = above
    return str(tap["name"])


def _target_of(tap: str, files: ProjectFiles) -> str | None:
    """Return the target of a tap's name, or else the one that follows it in a job."""
    of_name = tap.replace("tap-", "target-", 1)
    if files.plugin(_LOADERS, of_name):
        return of_name
    for document in files.documents:
        for job in document.get("jobs") or ():
            for task in job.get("tasks") or ():
                words = [word for part in ([task] if isinstance(task, str) else task) for word in str(part).split()]
                for word, following in pairwise(words):
                    if word == tap and following.startswith("target-"):
                        return following
    return None


def _raw_schema(project: Project, target: str) -> str:
    found = resolved_settings.read(project, target, [_SCHEMA]).get(_SCHEMA)
    return found.value if found else SourceDefinition.raw_schema


def _inherited(source: SourceDefinition, tap: dict[str, Any], files: ProjectFiles) -> Iterator[Fault]:
    """Yield what would let a source read another one's database."""
    parent = tap.get("inherit_from")
    # a pair says that it reads the same database
    is_pair = source.pair_of is not None and parent == f"tap-{source.pair_of}"
    if parent and not is_pair and "variant" not in tap and files.plugin(_EXTRACTORS, parent):
        what = (
            f"Source {source.name} inherits from {parent} of the project, whose variables, metadata and masks then "
            f"apply to it too: add `variant: bare` below `inherit_from: {TAP}` of {source.tap} in {source.path}"
        )
        yield Fault(source.name, f"{what}, and set {source.prefix}_HOST and {source.prefix}_DATABASE.")
    for config in files.configs(_EXTRACTORS, tap["name"]):
        for key, value in config.items():
            for variable in _REFERENCE.findall(str(value)):
                if key.upper() in _CONNECTION and not variable.startswith(f"{source.prefix}_"):
                    what = f"Source {source.name} takes its {key} from {variable}, another source's variable: set"
                    yield Fault(source.name, f"{what} {source.prefix}_{key.upper()} instead ({source.path}).")


def _pairs(found: Sequence[SourceDefinition]) -> Iterator[tuple[SourceDefinition, SourceDefinition]]:
    return ((one, other) for place, one in enumerate(found) for other in found[place + 1 :])


def _collisions(one: SourceDefinition, other: SourceDefinition) -> Iterator[Fault]:
    if one.raw_schema == other.raw_schema:
        what = (
            f"Sources {one.name} and {other.name} both load into schema {one.raw_schema}, where tables of one name "
            f"would overwrite each other: set another default_target_schema under `config` of {other.target} in load/."
        )
        # a run of either is wrong
        yield from (Fault(name, what) for name in (one.name, other.name))
    if one.prefix == other.prefix:
        what = f"Sources {one.name} and {other.name} have the same variables {one.prefix}_…: rename one of them."
        yield from (Fault(name, what) for name in (one.name, other.name))
