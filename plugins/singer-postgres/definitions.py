# ruff: noqa: INP001 - a script, beside the package
"""Writes the settings of tap or target, as the code has them, for the generator of Meltano's definitions.

`make definitions` runs it in both environments, because each has one of the two, and then the generator, which is
tidemark.release.definitions.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_postgres.core import setting_names

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETTINGS = Path(__file__).parents[1] / "tidemark" / "src" / "tidemark" / "release" / "settings"
_CLASSES = {"tap": "TapPostgres", "target": "TargetPostgres"}
# Of the MeltanoLabs plugin's settings, those of the connection and those with a default of a project. Meltano looks up
# each setting dozens of times at each start, so the full list would add a third of a second to it. The others still
# work under `config`.
_CONNECTION = ("host", "port", "user", "password", "database", "ssl_enable", "ssl_mode", "ssl_certificate_authority")
_INHERITED = {
    "tap": (*_CONNECTION, "filter_schemas"),
    "target": (*_CONNECTION, "default_target_schema", "add_record_metadata", "hard_delete"),
}
# A number is an integer for Meltano: its `decimal` makes values of variables that it then can't write as JSON.
_KINDS = {
    "array": "array",
    "boolean": "boolean",
    "integer": "integer",
    "number": "integer",
    "object": "object",
    "string": "string",
}


def main() -> None:
    """Write the settings."""
    kind = next(kind for kind in _CLASSES if importlib.util.find_spec(f"{kind}_postgres"))
    path(kind).write_text(text(kind), encoding="utf-8")
    schema_path(kind).write_text(schema(kind), encoding="utf-8")


def path(kind: str) -> Path:
    """Return the file of the settings of the tap or target."""
    return _SETTINGS / f"{kind}-postgres.json"


def schema_path(kind: str) -> Path:
    """Return the file of the JSON schema of all settings, by which `tidemark` checks them without the plugin."""
    return _SETTINGS / f"{kind}-postgres.schema.json"


def schema(kind: str) -> str:
    """Return the JSON schema of all settings of the tap or target, without descriptions and defaults."""
    own, others = _properties(kind)
    return json.dumps({"type": "object", "properties": _forms({**own, **others})}, indent=1, sort_keys=True) + "\n"


def _forms(schema: Any, *, are_names: bool = True) -> Any:
    """Return a part of a schema without what describes it.

    Args:
        are_names: the keys are names of settings.
    """
    if isinstance(schema, list):
        return [_forms(each, are_names=False) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key == "examples" and not are_names else _forms(value, are_names=key == "properties")
        for key, value in schema.items()
        if are_names or key not in {"description", "title", "default"}
    }


def text(kind: str) -> str:
    """Return the settings of the tap or target as JSON, with the code's defaults as their values."""
    own, others = _properties(kind)
    chosen = own | {name: others[name] for name in {*_INHERITED[kind]} - own.keys()}
    defaults = {name: value["default"] for name, value in own.items() if value.get("default") is not None}
    settings = [_setting(name, value, defaults) for name, value in setting_names.settings(chosen)]
    return json.dumps(settings, indent=2) + "\n"


def _setting(name: str, value: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    types = _types(value)
    setting = {
        "name": name,
        "label": value.get("title"),
        "kind": _KINDS.get(types[0]) if len(types) == 1 else None,
        "description": _description(value),
        "value": defaults.get(name),
        "sensitive": value.get("secret"),
    }
    return {key: each for key, each in setting.items() if each is not None and each != ""}


def _properties(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the tap or target in its JSON schema: its own, and those that it inherits."""
    own = importlib.import_module(f"singer_postgres.{kind}.settings").SETTINGS["properties"]
    plugin = getattr(importlib.import_module(f"singer_postgres.{kind}.{kind}"), _CLASSES[kind])
    plugin.append_builtin_config(plugin.config_jsonschema)
    return own, {name: value for name, value in plugin.config_jsonschema["properties"].items() if name not in own}


def _types(value: Mapping[str, Any]) -> list[str]:
    types = value.get("type", [])
    return [each for each in ([types] if isinstance(types, str) else types) if each != "null"]


def _description(value: Mapping[str, Any]) -> str:
    return " ".join(str(value.get("description", "")).split())


if __name__ == "__main__":
    sys.exit(main())
