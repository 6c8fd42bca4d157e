# ruff: noqa: INP001 - a script, beside the package
"""Writes the settings of tap or target, as the code has them, into Meltano's definitions of the plugin.

`make definitions` runs it in both environments: each has one of the two, and writes its definitions. The tap has two:
the variant `tidemark` reads the first source and has the embedded server's address as its defaults. The variant `bare`
is for all further sources and has none of them, so that a source without an address reads no other one's database.
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

_PLUGINS = Path(__file__).parents[1]
LOCKS = {
    "tap": [_PLUGINS / "extractors" / f"tap-postgres--{variant}.lock" for variant in ("tidemark", "bare")],
    "target": [_PLUGINS / "loaders" / "target-postgres--tidemark.lock"],
}
_CLASSES = {"tap": "TapPostgres", "target": "TargetPostgres"}
# the fast way between tap and target
_TAP = {"use_copy": True, "chunk_dir": "$MELTANO_PROJECT_ROOT/.tidemark/chunks"}
# by lock file: defaults of this project, and its own servers
_DEFAULTS: dict[str, dict[str, Any]] = {
    "tap-postgres--tidemark": {
        "host": "127.0.0.1",
        "port": 5433,
        "user": "tidemark_reader",
        "database": "shop",
        "filter_schemas": ["public"],
        **_TAP,
    },
    "tap-postgres--bare": {"host": None, "port": 5432, "user": "tidemark_reader", "database": None, **_TAP},
    "target-postgres--tidemark": {
        "host": "127.0.0.1",
        "port": 5434,
        "user": "tidemark_loader",
        "database": "warehouse",
        "default_target_schema": "raw",
        "add_record_metadata": True,
        # incremental models find a marked row by the transaction that marked it, and a deleted one not at all
        "hard_delete": False,
        "run_id": "$TIDEMARK_RUN_ID",
    },
}
_TLS = ("password", "ssl_enable", "ssl_mode", "ssl_certificate_authority")
_CONNECTION = {"tap": (*_TLS, "filter_schemas"), "target": _TLS}
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
    """Write the definitions."""
    kind = next(kind for kind in _CLASSES if importlib.util.find_spec(f"{kind}_postgres"))
    for path in LOCKS[kind]:
        path.write_text(with_settings(path, kind), encoding="utf-8")


def with_settings(path: Path, kind: str) -> str:
    """Return the definition in a lock file of the tap or target, with the settings of the code.

    Of the MeltanoLabs plugin's settings, it has those of the connection and those with a default of this project.
    Meltano looks up each setting dozens of times at each start, so the full list would add a third of a second to it.
    The others still work under `config`.
    """
    lock, of_project = path.read_text(encoding="utf-8"), _DEFAULTS[path.stem]
    own, others = _properties(kind)
    chosen = own | {name: others[name] for name in {*_CONNECTION[kind], *of_project} - own.keys()}
    defaults = {name: value["default"] for name, value in own.items() if value.get("default") is not None}
    defaults |= of_project
    settings = [_setting(name, value, defaults) for name, value in setting_names.settings(chosen)]
    # in ASCII: Meltano reads it in the encoding of the locale
    return json.dumps({**json.loads(lock), "settings": settings}, indent=2) + "\n"


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
