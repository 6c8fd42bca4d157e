"""The catalog: what the source has, with each column's exact type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_sdk.singerlib import CatalogEntry, MetadataMapping, Schema

from singer_postgres.tap.types import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from singer_postgres.tap.relations import Relation


def catalog(relations: Iterable[Relation], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Singer catalog of `relations`, masks applied to the types."""
    masks = config.get("masks") or {}
    return {
        "streams": [_entry(relation, masks.get(stream_id(relation)) or {}, config).to_dict() for relation in relations]
    }


def stream_id(relation: Relation) -> str:
    """Return the name of a relation's stream."""
    return f"{relation.schema}-{relation.name}"


def _entry(relation: Relation, masks: Mapping[str, str], config: Mapping[str, Any]) -> CatalogEntry:
    properties = {
        column.name: json_schema(
            "text" if masks.get(column.name) in {"sha256", "redact"} else column.landing.type or "text",
            nullable=column.name not in relation.key,
            json_as_object=bool(config.get("json_as_object")),
            dates_as_string=bool(config.get("dates_as_string")),
        )
        for column in relation.columns
    }
    schema = {"type": "object", "properties": properties, "required": list(relation.key)}
    return CatalogEntry(
        tap_stream_id=stream_id(relation),
        stream=stream_id(relation),
        table=relation.name,
        key_properties=list(relation.key),
        schema=Schema.from_dict(schema),
        is_view=relation.kind in "vm",
        replication_method="FULL_TABLE",
        metadata=MetadataMapping.get_standard_metadata(
            schema_name=relation.schema,
            schema=schema,
            replication_method="FULL_TABLE",
            key_properties=list(relation.key),
            valid_replication_keys=None,
        ),
        database=None,
        row_count=None,
        stream_alias=None,
        replication_key=None,
    )
