"""Settings of tap, target and dbt's plugin, from the JSON schemas of the first two and the definition of the third."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from repository import ROOT, asked, row

from singer_postgres.core import setting_names

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = """\
# Settings

Every setting can go under `config` of the plugin's YAML; other names are refused. Most have a variable too, for `.env`
or the environment, which takes precedence: the plugin's name and the setting's name in capitals, so that `max_parallel`
of `tap-postgres` is `TAP_POSTGRES_MAX_PARALLEL`. Objects and arrays are JSON there, and Meltano takes only whole
numbers from variables. These are the settings in the plugin's lock file (`plugins/extractors/`, `plugins/loaders/`):
Tidemark's own, those of the connection, and those that have a default of this project there, in place of the plugin's
default below. `.venv/bin/meltano config list tap-postgres` shows the values that a run gets, and where each comes from.

The tap of a further source has the same settings, and variables with its own name, such as `TAP_CRM_MAX_PARALLEL`. Its
lock file is that of the variant `bare`, which has no default of a database.
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
    for name, value in setting_names.settings(properties):
        types = value.get("type", "any")
        type_ = " or ".join(part for part in ([types] if isinstance(types, str) else types) if part != "null")
        default = f"`{json.dumps(value['default'])}`" if value.get("default") is not None else ""
        yield row(f"`{name}`", type_, default, str(value.get("description", "")))


def _dbt() -> Iterator[str]:
    definition = json.loads((ROOT / "plugins/utilities/dbt-postgres--tidemark.lock").read_text(encoding="utf-8"))
    yield "## dbt-postgres\n"
    yield "The plugin finds its connection in the [variables](variables.md) of the warehouse.\n"
    yield "| setting | variable | default | meaning |\n|---|---|---|---|"
    for setting in definition["settings"]:
        default = f"`{setting['value']}`" if "value" in setting else ""
        yield row(f"`{setting['name']}`", f"`{setting['env']}`", default, setting["description"])
    yield "\n| command | what it runs | what for |\n|---|---|---|"
    for name, command in definition["commands"].items():
        yield row(f"`{name}`", f"`dbt {command['args']}`", command["description"])
