"""Environment variables: groups, examples and their meaning from .env.example, defaults from the settings classes."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from repository import ROOT, asked, row

import tidemark

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Environment variables

They come from the environment or from `.env` in the project's directory; the environment takes precedence. An empty
value counts as not set. [.env.example](../../.env.example), from which this page is made, is a file to copy from.
Settings of tap, target and dbt have [variables too](settings.md). All `MELTANO_…`, `AIRFLOW__…` and libpq's `PG…`
variables mean what their own documentation says.

An example is a value to replace by yours. A default is what counts while the variable is not set.
"""
# the prefixes of the classes that have none of their own
_PREFIXES = {
    "Machine": "TIDEMARK_",
    "MonitorLogin": "TIDEMARK_MONITOR_",
    "ReporterLogin": "TIDEMARK_REPORTER_",
    "BackupSettings": "TIDEMARK_BACKUP_",
    "LogSettings": "TIDEMARK_LOG_",
    "ElasticsearchSettings": "TIDEMARK_ELASTICSEARCH_",
}
_IN_AIRFLOW = """
import json
from pydantic import SecretStr
from tidemark_airflow import settings
from tidemark_airflow.alerts import settings as alerts
found = {}
for module in (settings, alerts):
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, "model_fields"):
            for name, field in kind.model_fields.items():
                found[kind.model_config["env_prefix"] + name.upper()] = field.default
print(json.dumps(found))
"""
_GROUP = re.compile(r"^# --- (.+?) -+$")
_VARIABLE = re.compile(r"^#([A-Z][A-Z_]*)=(.*)$")


def page() -> str:
    """Return the page.

    Raises:
        LookupError: a setting of the code is missing from .env.example.
    """
    defaults = _defaults()
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    named = {found[1] for line in lines if (found := _VARIABLE.match(line))}
    if missing := sorted(defaults.keys() - named):
        msg = f".env.example lacks {', '.join(missing)}"
        raise LookupError(msg)
    return re.sub(r"\n{3,}", "\n\n", "\n".join([_HEAD, *_groups(lines, defaults)])) + "\n"


def _groups(lines: list[str], defaults: dict[str, str]) -> Iterator[str]:
    begun = in_table = False
    for line in lines:
        if group := _GROUP.match(line):
            begun, in_table = True, False
            yield f"\n## {group[1][0].upper()}{group[1][1:]}\n"
        elif variable := _VARIABLE.match(line):
            if not in_table:
                yield "\n| variable | default | example |\n|---|---|---|"
            in_table = True
            name, example = variable.groups()
            yield row(f"`{name}`", *(f"`{text}`" if text else "" for text in (defaults.get(name, ""), example)))
        elif begun and line.startswith("# "):
            if in_table:
                yield ""
            in_table = False
            yield line.removeprefix("# ")


def _defaults() -> dict[str, str]:
    """Return the variables that settings classes read, each with its default as one writes it."""
    found: dict[str, Any] = {}
    for module in pkgutil.walk_packages(tidemark.__path__, "tidemark."):
        if not module.name.endswith("settings"):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__module__ == module.name:
                own = getattr(kind, "variables_prefix", None)
                prefix = f"{own}_" if own else _PREFIXES.get(kind.__name__)
                if prefix:
                    found |= {prefix + name.upper(): field.default for name, field in kind.model_fields.items()}
    found |= asked("utilities/airflow", _IN_AIRFLOW)
    return {name: _written(value) for name, value in found.items()}


def _written(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if isinstance(default, str | int | float) else ""
