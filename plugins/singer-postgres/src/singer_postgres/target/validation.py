"""Validates records with code that fastjsonschema generates from their schema. The SDK decides about refused records.

The SDK's validator takes more time than everything else that happens to a record. fastjsonschema knows JSON Schema up
to draft 7, and the SDK uses 2020-12. So schemas with keywords that the two read differently go to the SDK alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fastjsonschema
from singer_sdk.sinks.core import JSONSchemaValidator

if TYPE_CHECKING:
    from collections.abc import Callable

_DRAFT = "http://json-schema.org/draft-07/schema#"
# newer than draft 7, or read differently; fastjsonschema would also fetch remote references
_DIFFERENT = {
    *("$dynamicRef", "$recursiveRef", "$ref", "dependentRequired", "dependentSchemas", "maxContains", "minContains"),
    *("multipleOf", "prefixItems", "unevaluatedItems", "unevaluatedProperties"),
}


class RecordValidator(JSONSchemaValidator):
    """Accepts the same records as the SDK's validator, which refuses the others."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Initialize the validator.

        Raises:
            InvalidJSONSchema: the schema is invalid.
        """
        super().__init__(schema)
        self._check = None if _DIFFERENT & _names(schema) else _compiled(schema)

    def validate(self, record: dict[str, Any]) -> None:
        """Validate a record.

        Raises:
            InvalidRecord: the record does not match the schema.
        """
        if self._check:
            try:
                self._check(record)
            except fastjsonschema.JsonSchemaValueException:
                pass
            else:
                return
        super().validate(record)


def _names(schema: Any) -> set[str]:
    """Return the names of all keywords and properties in a schema."""
    if isinstance(schema, dict):
        return set(schema).union(*map(_names, schema.values()))
    return set().union(*map(_names, schema)) if isinstance(schema, list) else set()


def _compiled(schema: dict[str, Any]) -> Callable[[dict[str, Any]], Any] | None:
    """Return a function that raises for invalid records, or None if fastjsonschema can't generate it."""
    try:
        # fastjsonschema writes defaults into the record unless told otherwise
        return fastjsonschema.compile(
            {**schema, "$schema": _DRAFT}, use_default=False, use_formats=False, detailed_exceptions=False
        )
    # such as Python's SyntaxError: it limits how deep loops may be nested
    except Exception:  # noqa: BLE001
        return None
