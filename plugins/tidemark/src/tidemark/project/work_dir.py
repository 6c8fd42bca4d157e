"""A run's own directory, where the project is read only or shared with other machines: TIDEMARK_WORK_DIR."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from pathlib import Path

# what Meltano and its plugins write, by the variable that says where, as Meltano reads it
_DIRECTORIES = {
    "MELTANO_SYS_DIR_ROOT": ".meltano",
    "TAP_POSTGRES_CHUNK_DIR": ".tidemark/chunks",
    "DBT_POSTGRES_TARGET_PATH": ".meltano/dbt/target",
    "DBT_POSTGRES_GOOD_RUN_PATH": ".meltano/dbt/good",
    "DBT_POSTGRES_LOG_PATH": "logs",
    # where Meltano logs, besides: below a home, which a container's user may not have
    "XDG_STATE_HOME": ".state",
}
# Meltano and the SDK look for these in the process alone, and not in .env
_OF_PROCESS = {"MELTANO_SYS_DIR_ROOT", "XDG_STATE_HOME"}
_VARIABLE = "TIDEMARK_WORK_DIR"
# where Meltano looks for each kind of plugin's environments
_KINDS = ("extractors", "loaders", "utilities")


def enter_if_named() -> None:
    """Make this process, and all that it starts, write below TIDEMARK_WORK_DIR if that is set.

    What is installed is read where it is.

    Raises:
        UsageError: that directory can't be written, or there is no project.
    """
    try:
        project = Project.find()
    except UsageError:
        # what asks for nothing of a project, such as --help, needs none
        if os.environ.get(_VARIABLE):
            raise
        return
    if project.variable(_VARIABLE):
        _enter(project)


def _enter(project: Project) -> None:
    work = project.work
    try:
        for variable, name in _DIRECTORIES.items():
            directory = work / name
            directory.mkdir(parents=True, exist_ok=True)
            if variable in _OF_PROCESS or not project.variable(variable):
                os.environ.setdefault(variable, str(directory))
        for kind in _KINDS:
            # a directory of links, and no link to the directory: Meltano makes one there for a plugin that has none
            own = work / ".meltano" / kind
            own.mkdir(exist_ok=True)
            for plugin in (project.plugins / kind).glob("*"):
                _link(own / plugin.name, plugin)
        # where Meltano writes each plugin's settings, passwords included
        (work / ".meltano" / "run").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{_VARIABLE} is {work}, where {error.filename} can't be made: {error.strerror}; name a directory "
            "that this user may write."
        ) from None
    if not project.variable("MELTANO_PROJECT_READONLY"):
        os.environ["MELTANO_PROJECT_READONLY"] = "true"


def _link(link: Path, to: Path) -> None:
    if link.is_symlink() and link.readlink() == to:
        return
    # another project's, or another run is just making it
    if link.is_symlink():
        link.unlink()
    with suppress(FileExistsError):
        link.symlink_to(to)
