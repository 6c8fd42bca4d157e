# ruff: noqa: INP001 - a script, beside the package
"""Keeps the settings in README.md as the code has them: `python docs.py` in the environment of the tap or the target.

Each environment holds one of the two, and writes that one's tables.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).with_name("README.md")
_CLASSES = {"tap": "TapPostgres", "target": "TargetPostgres"}


def main() -> None:
    """Write the tables."""
    kind = next(kind for kind in _CLASSES if importlib.util.find_spec(f"{kind}_postgres"))
    README.write_text(with_tables(README.read_text(encoding="utf-8"), kind), encoding="utf-8")


def with_tables(readme: str, kind: str) -> str:
    """Return `readme` with the settings of the tap or target between their markers."""
    begin, end = f"<!-- settings of the {kind} -->\n", f"<!-- end of the settings of the {kind} -->\n"
    before, _, rest = readme.partition(begin)
    _, _, after = rest.partition(end)
    own = importlib.import_module(f"singer_postgres.{kind}.settings").SETTINGS["properties"]
    plugin = getattr(importlib.import_module(f"singer_postgres.{kind}.{kind}"), _CLASSES[kind])
    plugin.append_builtin_config(plugin.config_jsonschema)
    others = {name: value for name, value in plugin.config_jsonschema["properties"].items() if name not in own}
    parts = ["Its own:\n", *_table(own), "\nThe MeltanoLabs plugin's and the Singer SDK's:\n", *_table(others)]
    return before + begin + "\n".join(parts) + "\n" + end + after


def _table(properties: dict[str, Any]) -> Iterator[str]:
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, value in _flat(properties):
        types = value.get("type", "any")
        type_ = " or ".join(part for part in ([types] if isinstance(types, str) else types) if part != "null")
        default = f"`{json.dumps(value['default'])}`" if value.get("default") is not None else ""
        meaning = " ".join(str(value.get("description", "")).split()).replace("|", r"\|")
        yield f"| `{name}` | {type_} | {default} | {meaning} |"


def _flat(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the settings by their full names, those within others after them."""
    for name, value in sorted(properties.items()):
        if value.get("properties") and not value.get("additionalProperties"):
            yield from _flat(value["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, value


if __name__ == "__main__":
    sys.exit(main())
