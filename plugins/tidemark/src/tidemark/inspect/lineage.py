"""Finds the tables and views that dbt built from a raw table, in dbt's manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_MADE = {"model", "snapshot", "seed"}


@dataclass(frozen=True)
class DownstreamModel:
    """A model's place in the warehouse."""

    schema: str
    name: str


def models_of(manifest: Path, schema: str, table: str) -> list[DownstreamModel]:
    """Return the models below a raw table, the nearest first; an empty list if dbt has not run yet."""
    try:
        content: dict[str, Any] = json.loads(manifest.read_text())
    except (OSError, ValueError):
        return []
    wanted = schema, table
    at = [id_ for id_, source in content["sources"].items() if (source["schema"], source["identifier"]) == wanted]
    found: dict[str, DownstreamModel] = {}
    while at:
        children = [child for id_ in at for child in content["child_map"].get(id_, ())]
        at = []
        for child in dict.fromkeys(children):
            node = content["nodes"].get(child)
            if node is None or node["resource_type"] not in _MADE:
                continue
            # move a model that was found before to the end, so that the furthest models come last
            found.pop(child, None)
            found[child] = DownstreamModel(node["schema"], node["alias"])
            at.append(child)
    return [model for id_, model in found.items() if content["nodes"][id_]["config"]["materialized"] != "ephemeral"]
