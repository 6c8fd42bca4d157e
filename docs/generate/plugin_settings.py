"""Settings of tap, target and dbt's plugin, from the JSON schemas of the first two and the definition of the third."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from repository import ROOT, asked, row

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Settings

Each setting has two names: the one in `config` of the plugin's YAML, and a variable for `.env` or the environment,
which takes precedence. The variable is the plugin's name and the setting's name in capitals: `max_parallel` of
`tap-postgres` is `TAP_POSTGRES_MAX_PARALLEL`. Objects and arrays are JSON there. `.venv/bin/meltano config list
tap-postgres` shows the values that a run gets, and where each comes from. A default is the plugin's; `extract/` and
`load/` name others for some.
"""
_SCHEMA = """
import json
from singer_postgres.{kind}.{kind} import {name} as plugin
from singer_postgres.{kind}.settings import SETTINGS
plugin.append_builtin_config(plugin.config_jsonschema)
print(json.dumps([SETTINGS["properties"], plugin.config_jsonschema["properties"]]))
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for name, kind, group in (("TapPostgres", "tap", "extractors"), ("TargetPostgres", "target", "loaders")):
        own, all_ = asked(f"{group}/{kind}-postgres", _SCHEMA.format(kind=kind, name=name))
        others = {name: value for name, value in all_.items() if name not in own}
        parts += [f"## {kind}-postgres\n", "Tidemark's own:\n", *_table(own), ""]
        parts += ["The MeltanoLabs plugin's and the Singer SDK's, in their words:\n", *_table(others), ""]
    return "\n".join([*parts, *_dbt()]) + "\n"


def _table(properties: dict[str, Any]) -> Iterator[str]:
    yield "| setting | type | default | meaning |\n|---|---|---|---|"
    for name, value in _flat(properties):
        types = value.get("type", "any")
        type_ = " or ".join(part for part in ([types] if isinstance(types, str) else types) if part != "null")
        default = f"`{json.dumps(value['default'])}`" if value.get("default") is not None else ""
        yield row(f"`{name}`", type_, default, str(value.get("description", "")))


def _flat(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the settings by their full names, and those inside an object with a dot between."""
    for name, value in sorted(properties.items()):
        if value.get("properties") and not value.get("additionalProperties"):
            yield from _flat(value["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _dbt() -> Iterator[str]:
    definition = _definition("dbt-postgres")
    yield "## dbt-postgres\n"
    yield "The plugin finds its connection in the [variables](variables.md) of the warehouse.\n"
    yield "| setting | variable | default | meaning |\n|---|---|---|---|"
    for setting in definition["settings"]:
        default = f"`{setting['value']}`" if "value" in setting else ""
        yield row(f"`{setting['name']}`", f"`{setting['env']}`", default, setting["description"])
    yield "\n| command | what it runs | what for |\n|---|---|---|"
    for name, command in definition["commands"].items():
        yield row(f"`{name}`", f"`dbt {command['args']}`", command["description"])


def _definition(plugin: str) -> dict[str, Any]:
    """Return a plugin as one of the project's YAML files defines it."""
    for path in sorted(ROOT.glob("*/*.meltano.yml")):
        for kind in yaml.safe_load(path.read_text(encoding="utf-8")).get("plugins", {}).values():
            for found in kind:
                if found["name"] == plugin:
                    return dict(found)
    raise LookupError(plugin)
