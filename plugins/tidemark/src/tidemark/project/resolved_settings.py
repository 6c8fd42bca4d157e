"""The settings of tap, target and dbt as Meltano resolves them: variables, .env, YAML, its database, defaults.

If an environment of meltano.yml or Meltano's database has a setting, or a value refers to a variable, this asks
Meltano. Usually that is not so. Then variables, `config` and defaults are enough, and the second that Meltano's import
takes is saved.
"""

from __future__ import annotations

import functools
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from tidemark.project import definitions, meltano_database, meltano_project, variables, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meltano.core.project import Project as MeltanoProject
    from sqlalchemy.orm import Session

    from tidemark.project.directory import Project

_TIMEOUT_S = 10
_STORED = "select 1 from plugin_settings where enabled limit 1"


@dataclass(frozen=True)
class Setting:
    """A setting's value, and whether it is the plugin's default or somebody set it."""

    value: str
    is_default: bool


def read(project: Project, plugin: str, names: Iterable[str]) -> dict[str, Setting]:
    """Return those of the settings `names` that have a value.

    Raises:
        UsageError: Meltano's files or .env can't be read, or the plugin has no definition.
        TidemarkError: Meltano's database can't be read.
    """
    files = yaml_files.read(project)
    found = variables.read(project)
    kind = meltano_project.kind(plugin)
    names = list(names)
    defaults = definitions.read(project, files, kind, plugin).settings
    # the plugin's own, and then those of the plugins that it inherits from
    levels = [(_prefix(each["name"]), each.get("config") or {}) for each in files.ancestry(kind, plugin)]
    levels = levels or [(_prefix(plugin), {})]
    values = [source.get(name) for name in names for source in (defaults, *(config for _, config in levels))]
    known_by = {f"{prefix}_{name.upper()}" for prefix, _ in levels for name in names}
    if (
        files.only_meltano_knows(kind, plugin, known_by)
        or any("$" in str(value) or isinstance(value, dict) for value in values)
        or _stored(project, database_uri(project))
    ):
        variable_names = {name: f"{levels[0][0]}_{name.upper()}" for name in names}
        return _ask_meltano(project, plugin, variable_names, found)
    settings = {}
    for name in names:
        chosen = [
            each for prefix, config in levels for each in (found.get(f"{prefix}_{name.upper()}"), config.get(name))
        ]
        if (value := next((each for each in chosen if each is not None and each != ""), None)) is not None:
            settings[name] = Setting(str(value), is_default=False)
        elif defaults.get(name) is not None:
            settings[name] = Setting(str(defaults[name]), is_default=True)
    return settings


def _prefix(plugin: str) -> str:
    return plugin.upper().replace("-", "_")


def beyond_variables(project: Project, plugin: str, names: Iterable[str]) -> list[str]:
    """Return the variables that would replace settings which somebody made in YAML or in Meltano's database.

    Raises:
        UsageError, TidemarkError: see `read`.
    """
    found = variables.read(project)
    named = {name: f"{_prefix(plugin)}_{name.upper()}" for name in names}
    settings = read(project, plugin, named)
    return [
        variable
        for name, variable in named.items()
        if name in settings and not settings[name].is_default and variable not in found
    ]


def database_uri(project: Project) -> str:
    """Return the address of Meltano's own database; empty for the default file."""
    named = variables.read(project).get("MELTANO_DATABASE_URI")
    return named or yaml_files.read(project).setting("database_uri") or ""


def _ask_meltano(project: Project, plugin: str, names: dict[str, str], found: dict[str, str]) -> dict[str, Setting]:
    from meltano.core.settings_store import SettingValueStore  # noqa: PLC0415

    meltano = meltano_project.find(project)
    _, service = meltano_project.plugin(meltano, plugin)
    settings = {}
    with stored(project, meltano) as session:
        for name, variable in names.items():
            value: Any = None
            is_default = False
            # a plugin only has settings that the plugin or YAML defines
            if service.find_setting(name):
                value, metadata = service.get_with_metadata(name, session=session)
                is_default = metadata["source"] is SettingValueStore.DEFAULT
            # an empty variable counts as unset
            value = value if value not in {None, ""} else found.get(variable)
            if value is not None:
                settings[name] = Setting(str(value), is_default=is_default)
    return settings


@contextmanager
def stored(project: Project, meltano: MeltanoProject) -> Iterator[Session | None]:
    """Open Meltano's database, if it has any settings: opening one that doesn't exist would create it.

    Raises:
        TidemarkError: the database can't be used.
    """
    if not _stored(project, database_uri(project)):
        yield None
        return
    with meltano_project.database(meltano) as session:
        yield session


def _stored(project: Project, uri: str) -> bool:
    """Return whether Meltano's database has any settings. If it can't be read, the run itself will report that."""
    kind, _, rest = uri.partition("://")
    if kind.partition("+")[0] in {"postgresql", "postgres"}:
        return _stored_in_postgres(f"postgresql://{rest}")
    path = meltano_database.file_of(project, uri)
    if path is None:
        # only Meltano can read these
        return True
    if not path.is_file():
        return False
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(_STORED).fetchone() is not None
    return False


@functools.cache
def _stored_in_postgres(uri: str) -> bool:
    # once per process: if the server doesn't answer, this takes the whole timeout
    with suppress(psycopg.Error), psycopg.connect(uri, connect_timeout=_TIMEOUT_S) as connection:
        return connection.execute(_STORED).fetchone() is not None
    return False
