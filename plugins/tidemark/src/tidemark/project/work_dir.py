"""TIDEMARK_WORK_DIR: a directory for what a run writes, if the project is read-only or shared with other machines."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.project import sources
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from pathlib import Path

# the directories that Meltano and its plugins write, by the variable that sets each one
_DIRECTORIES = {
    "MELTANO_SYS_DIR_ROOT": ".meltano",
    "DBT_POSTGRES_TARGET_PATH": ".meltano/dbt/target",
    "DBT_POSTGRES_GOOD_RUN_PATH": ".meltano/dbt/good",
    "DBT_POSTGRES_LOG_PATH": "logs",
    # another log of Meltano's: by default in the home directory, which a container's user may not have
    "XDG_STATE_HOME": ".state",
}
_CHUNKS = ".tidemark/chunks"
# Meltano and the SDK read these only from the process, not from .env
_OF_PROCESS = {"MELTANO_SYS_DIR_ROOT", "XDG_STATE_HOME"}
_VARIABLE = "TIDEMARK_WORK_DIR"
# the kinds of plugins whose environments Meltano looks for
_KINDS = ("extractors", "loaders", "utilities")


def enter_if_named() -> None:
    """Make this process and its children write below TIDEMARK_WORK_DIR, if that is set.

    What is installed is still read from the project.

    Raises:
        UsageError: that directory can't be written, or there is no project.
    """
    try:
        project = Project.find()
    except UsageError:
        # commands that need no project, such as --help, go on
        if os.environ.get(_VARIABLE):
            raise
        return
    if project.variable(_VARIABLE):
        _enter(project)


def _enter(project: Project) -> None:
    work = project.work
    try:
        for variable, name in {**_DIRECTORIES, **_chunk_directories(project)}.items():
            directory = work / name
            directory.mkdir(parents=True, exist_ok=True)
            if variable in _OF_PROCESS or not project.variable(variable):
                os.environ.setdefault(variable, str(directory))
        _prepare(project, work / ".meltano")
    except OSError as error:
        raise UsageError(
            f"{_VARIABLE} is {work}, where {error.filename} can't be created: {error.strerror}; name a directory "
            "that this user may write."
        ) from None
    if not project.variable("MELTANO_PROJECT_READONLY"):
        os.environ["MELTANO_PROJECT_READONLY"] = "true"


def of_shard(project: Project, name: str) -> dict[str, str]:
    """Return the variables with which Meltano writes into a directory of its own, for a run that has others beside it.

    Meltano has one file for the catalog of a tap, and one for its state, for all runs in a directory.
    """
    directory = project.state_dir / "shards" / name / ".meltano"
    directory.mkdir(parents=True, exist_ok=True)
    _prepare(project, directory)
    return {"MELTANO_SYS_DIR_ROOT": str(directory)}


def _prepare(project: Project, directory: Path) -> None:
    """Make a directory one in which Meltano finds the project's plugins, and may write."""
    for kind in _KINDS:
        # one link per plugin, not a link to the whole directory: Meltano creates directories for other plugins
        own = directory / kind
        own.mkdir(exist_ok=True)
        for plugin in (project.plugins / kind).glob("*"):
            _link(own / plugin.name, plugin)
    # Meltano writes each plugin's settings here, including passwords
    (directory / "run").mkdir(mode=0o700, exist_ok=True)


def _chunk_directories(project: Project) -> dict[str, str]:
    """Return the variable of each tap's directory of chunks."""
    taps = {sources.TAP}
    # a command that needs the project's files reports why they can't be read
    with suppress(UsageError):
        taps |= {source.tap for source in sources.read_with_faults(project)[0]}
    return {f"{sources.prefix(tap)}_CHUNK_DIR": _CHUNKS for tap in sorted(taps)}


def _link(link: Path, to: Path) -> None:
    if link.is_symlink() and link.readlink() == to:
        return
    # the link belongs to another project, or another run creates it at this moment
    if link.is_symlink():
        link.unlink()
    with suppress(FileExistsError):
        link.symlink_to(to)
