"""Which tables and views dbt made of a raw table, as its manifest has them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_MADE = {"model", "snapshot", "seed"}


@dataclass(frozen=True)
class Model:
    """One of them: where it is in the warehouse."""

    schema: str
    name: str


def models_of(manifest: Path, schema: str, table: str) -> list[Model]:
    """Return what comes of a raw table, the nearest first; nothing where dbt has not run yet."""
    try:
        content: dict[str, Any] = json.loads(manifest.read_text())
    except (OSError, ValueError):
        return []
    wanted = schema, table
    at = [id_ for id_, source in content["sources"].items() if (source["schema"], source["identifier"]) == wanted]
    found: dict[str, Model] = {}
    while at:
        children = [child for id_ in at for child in content["child_map"].get(id_, ())]
        at = []
        for child in dict.fromkeys(children):
            node = content["nodes"].get(child)
            if node is None or node["resource_type"] not in _MADE:
                continue
            # again, if it was nearer before: what is furthest down comes last
            found.pop(child, None)
            found[child] = Model(node["schema"], node["alias"])
            at.append(child)
    return [model for id_, model in found.items() if content["nodes"][id_]["config"]["materialized"] != "ephemeral"]
