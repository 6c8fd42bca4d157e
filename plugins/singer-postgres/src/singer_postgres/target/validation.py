"""Validates records against their JSON schema: fast if the schema only has types, otherwise with the SDK's validator.

The SDK's validator takes more time than everything else that happens to a record.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from singer_sdk.sinks.core import JSONSchemaValidator
from singer_sdk.typing import DEFAULT_JSONSCHEMA_VALIDATOR

if TYPE_CHECKING:
    from collections.abc import Mapping

# the exact Python types that the SDK's reader and stream maps produce
_TYPES: dict[str, frozenset[type]] = {
    "string": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, Decimal, float}),
    "boolean": frozenset({bool}),
    "object": frozenset({dict}),
    "array": frozenset({list}),
    "null": frozenset({type(None)}),
}
# keywords that say nothing more about a value than its type; formats are left to the column
_IDLE = frozenset({"type", "format", "title", "description", "default", "examples", "contentEncoding", "$comment"})
_OF_OBJECTS = frozenset({"$schema", "$id", "type", "title", "description", "properties", "required", "key_properties"})


class RecordValidator(JSONSchemaValidator):
    """Accepts the same records as the SDK's validator, which refuses the others."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Initialize the validator.

        Raises:
            InvalidJSONSchema: the schema is not valid.
        """
        super().__init__(schema)
        self._quick = _is_quick(schema)
        self._required = frozenset(schema.get("required") or ()) if self._quick else frozenset()
        self._types = {name: _types(part) for name, part in schema["properties"].items()} if self._quick else {}
        self._parts = {
            name: DEFAULT_JSONSCHEMA_VALIDATOR(part)
            for name, part in schema["properties"].items()
            if self._quick and not _is_idle(part)
        }

    def validate(self, record: dict[str, Any]) -> None:
        """Validate a record.

        Raises:
            InvalidRecord: the record does not match the schema.
        """
        if not self._accepts(record):
            super().validate(record)

    def _accepts(self, record: dict[str, Any]) -> bool:
        """Return whether the record is certainly valid."""
        if not self._quick or not self._required <= record.keys():
            return False
        types, parts = self._types, self._parts
        for name, value in record.items():
            allowed = types.get(name)
            if allowed is None:
                # the schema doesn't have this field
                continue
            if type(value) not in allowed or (name in parts and not parts[name].is_valid(value)):
                return False
        return True


def _is_quick(schema: Mapping[str, Any]) -> bool:
    """Return whether each property can be checked by itself."""
    open_ = {**schema}
    # false would make every unknown field an error
    if open_.pop("additionalProperties", True) is not True:
        return False
    refers = re.search(r'"\$\w*ref"', json.dumps(schema, default=str), re.IGNORECASE)
    return open_.keys() <= _OF_OBJECTS and "object" in open_.get("type", "object") and not refers


def _types(schema: Any) -> frozenset[type]:
    """Return the Python types that a value may have."""
    if not isinstance(schema, dict):
        return frozenset()
    names = schema.get("type", list(_TYPES))
    return frozenset().union(*(_TYPES[name] for name in ([names] if isinstance(names, str) else names)))


def _is_idle(schema: Any) -> bool:
    return isinstance(schema, dict) and all(name in _IDLE or name.startswith("x-") for name in schema)
