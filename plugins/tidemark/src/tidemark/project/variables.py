"""Variables as Meltano reads them: the process's environment takes precedence over .env, and names are literal."""

from __future__ import annotations

import functools
import io
import os
from typing import TYPE_CHECKING, TypeVar

from dotenv.parser import parse_stream
from dotenv.variables import Variable, parse_variables
from pydantic import BaseModel, ValidationError

from tidemark.errors import UsageError
from tidemark.project import dotenv_file, yaml_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tidemark.project.directory import Project

_ENVIRONMENT, _DEFAULT = "MELTANO_ENVIRONMENT", "MELTANO_DEFAULT_ENVIRONMENT"
_OURS = ("TAP_", "TARGET_", "DBT_", "TIDEMARK_", "MELTANO_", "AIRFLOW_")
_M = TypeVar("_M", bound=BaseModel)


def read(project: Project) -> dict[str, str]:
    """Return all variables of the process and of .env. An empty variable counts as unset.

    Raises:
        UsageError: a line of .env can't be parsed.
    """
    return {name: value for name, value in [*_of_dotenv(project.dotenv).items(), *os.environ.items()] if value}


def fill(kind: type[_M], prefix: str, values: Mapping[str, str]) -> _M:
    """Return a `kind` with the fields `values`. An error names the field with `prefix`.

    Raises:
        UsageError: a value can't be used.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            f"{prefix}{str(first['loc'][0]).upper()} is {first['input']!r}: {first['msg']}; correct it."
        ) from None


def read_into(kind: type[_M], prefix: str, project: Project) -> _M:
    """Return a `kind` with its fields from the variables that begin with `prefix`.

    Raises:
        UsageError: a variable's value can't be used.
    """
    found = read(project)
    named = {name: f"{prefix}{name.upper()}" for name in kind.model_fields}
    return fill(kind, prefix, {name: found[variable] for name, variable in named.items() if variable in found})


def environment(project: Project) -> str:
    """Return the name of the Meltano environment that a run would use.

    Raises:
        UsageError: no environment is selected.
    """
    dotenv = _of_dotenv(project.dotenv)
    # as in Meltano: a variable of the process hides the one in .env, even if it is empty
    name = os.environ.get(_ENVIRONMENT, dotenv.get(_ENVIRONMENT))
    name = name or read(project).get(_DEFAULT) or yaml_files.read(project).setting("default_environment")
    if not name or name.lower() == "null":
        raise UsageError(
            f"No Meltano environment is selected, and Meltano keeps no state without one; set {_ENVIRONMENT}, or "
            "default_environment in meltano.yml."
        )
    return name


def _of_dotenv(dotenv: Path) -> dict[str, str]:
    """Return the variables of .env, with `${NAME}` expanded as Meltano does it.

    Raises:
        UsageError: a line can't be parsed, which python-dotenv would skip; or a variable of ours refers to an unset
            one, which python-dotenv replaces by nothing. Both would lose a setting.
    """
    if not dotenv.exists():
        return {}
    _refuse_lost(dotenv, dotenv.read_text(encoding="utf-8"), frozenset(os.environ))
    return {name: value for name, value in dotenv_file.read(dotenv).items() if value is not None}


# once for each text: a command with many sources reads the file often
@functools.lru_cache(maxsize=8)
def _refuse_lost(dotenv: Path, text: str, known: frozenset[str]) -> None:
    """Raise if a line would lose a setting.

    Args:
        known: the variables of the process.

    Raises:
        UsageError: see `_of_dotenv`.
    """
    for binding in parse_stream(io.StringIO(text)):
        line = f"Line {binding.original.line} of {dotenv}"
        # never show the value: it may be a password
        if binding.error:
            name, equals, _ = binding.original.string.strip().partition("=")
            raise UsageError(
                f"{line} can't be read: {f'{name}{equals}…' if equals else name!r}; write NAME=value, in quotes if "
                "the value has any, or put a # before it."
            )
        if binding.key and binding.key.startswith(_OURS) and not _names(binding.value or "") <= known:
            raise UsageError(
                f"{line}: {binding.key} refers with ${{NAME}} to a variable that is not set, and would lose that "
                "part; set it above, or, for a plain ${, write ${:-$}{ and put the value in single quotes."
            )
        known |= {binding.key or ""}


def _names(value: str) -> set[str]:
    """Return the variables that a value refers to without a default."""
    atoms = parse_variables(value)
    return {atom.name for atom in atoms if isinstance(atom, Variable) and atom.default is None}
