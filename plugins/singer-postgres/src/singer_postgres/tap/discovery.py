"""The catalog: the source's relations, with each column's exact type.

This doesn't use the SDK: discovery precedes every run, and importing the SDK would take most of its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import NameTakenError
from singer_postgres.core.source.masks import AS_TEXT
from singer_postgres.core.types import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from singer_postgres.core.source.relations import Relation


def catalog(relations: Iterable[Relation], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Singer catalog of `relations`, with the types that masked columns have."""
    masks = config.get("masks") or {}
    relations = list(relations)
    named: dict[str, Relation] = {}
    for relation in relations:
        other = named.setdefault(stream_id(relation), relation)
        if other is not relation:
            msg = (
                f'"{other.schema}"."{other.name}" and "{relation.schema}"."{relation.name}" have the same stream '
                f"name, {stream_id(relation)}; leave one of the schemas out of filter_schemas, or rename a table."
            )
            raise NameTakenError(msg)
    return {"streams": [_entry(relation, masks.get(stream_id(relation)) or {}, config) for relation in relations]}


def stream_id(relation: Relation) -> str:
    """Return the name of a relation's stream."""
    return f"{relation.schema}-{relation.name}"


def _entry(relation: Relation, masks: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, Any]:
    key = list(relation.key)
    properties = {
        column.name: json_schema(
            "text" if masks.get(column.name) in AS_TEXT else column.target_type.type or "text",
            nullable=column.name not in key,
            json_as_object=bool(config.get("json_as_object")),
            dates_as_string=bool(config.get("dates_as_string")),
        )
        for column in relation.columns
    }
    table = {
        "inclusion": "available",
        "selected": None,
        "table-key-properties": key,
        "forced-replication-method": "FULL_TABLE",
        "schema-name": relation.schema,
    }
    return {
        "tap_stream_id": stream_id(relation),
        "stream": stream_id(relation),
        "table_name": relation.name,
        "is_view": relation.kind in "vm",
        "key_properties": key,
        "replication_method": "FULL_TABLE",
        "schema": {"type": "object", "properties": properties, "required": key},
        "metadata": [
            {"breadcrumb": [], "metadata": {name: value for name, value in table.items() if value is not None}},
            *(
                {
                    "breadcrumb": ["properties", name],
                    "metadata": {"inclusion": "automatic" if name in key else "available"},
                }
                for name in properties
            ),
        ],
    }
