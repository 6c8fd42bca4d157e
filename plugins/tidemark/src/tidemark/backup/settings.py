"""The settings of backups, which are variables: where backups go, how many are kept, and which role connects."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, SecretStr

from tidemark.project import database_settings
from tidemark.project import variables as variables_

if TYPE_CHECKING:
    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project

_PREFIX = "TIDEMARK_BACKUP_"


class BackupSettings(BaseModel):
    """The variables `TIDEMARK_BACKUP_TO` and so on. Options of the command take precedence."""

    to: str | None = None
    keep: int | None = Field(default=None, ge=1)
    keep_days: float | None = Field(default=None, gt=0)
    jobs: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)
    user: str | None = None
    password: SecretStr | None = None


def read(project: Project) -> BackupSettings:
    """Read the settings.

    Raises:
        UsageError: a variable's value can't be used.
    """
    return variables_.read_into(BackupSettings, _PREFIX, project)


def destination(project: Project, named: str | None) -> str:
    """Return where backups are kept: the given place, or the variable's, or a directory of this machine."""
    return named or read(project).to or str(project.state_dir / "backups")


def login(project: Project, side: DatabaseSettings) -> DatabaseSettings:
    """Return `side` with the role for dumps and restores: the owner of an embedded server, or the configured role."""
    if side.embedded or side.side != "warehouse":
        return database_settings.admin(project, side)
    found = read(project)
    return side.model_copy(update={"user": found.user, "password": found.password}) if found.user else side


def variables(side: DatabaseSettings) -> str:
    """Return the names of the variables that set the role for dumps and restores of `side`."""
    return f"{_PREFIX if side.side == 'warehouse' else f'{side.prefix}_'}USER and _PASSWORD"
