"""Says in one line what is wrong with the form of a setting's value, from an error of its JSON schema."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    class SchemaError(Protocol):
        """A ValidationError of jsonschema, which not every environment has."""

        message: str
        instance: Any
        validator: str
        validator_value: Any
        path: Iterable[str | int]
        schema: Mapping[str, Any]


_TYPES = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
}
_MOST_CHARACTERS, _NAMED = 80, 3


def faults(errors: Iterable[SchemaError], properties: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the values of settings, as one line; None if nothing is.

    Args:
        errors: those of the configuration's JSON schema.
        properties: the settings in that schema.
    """
    found = list(dict.fromkeys(_fault(error, properties) for error in errors))
    more = f" There are {len(found) - _NAMED} more." if len(found) > _NAMED else ""
    return f"{' '.join(found[:_NAMED])}{more}" if found else None


def _fault(error: SchemaError, properties: Mapping[str, Any]) -> str:
    path = list(error.path)
    if not path:
        return f"{error.message}."
    return fault(path, error.instance, properties.get(str(path[0]), {}), _wanted(error))


def fault(path: Sequence[str | int], value: object, setting: Mapping[str, Any], wanted: str) -> str:
    """Return what is wrong with a value, as a sentence.

    Args:
        path: the setting, and the place in its value.
        setting: the setting's part of the JSON schema.
        wanted: what the value must be.

    >>> fault(["where"], ["a = 1"], {"examples": [{"public-a": "a = 1"}]}, "an object")
    'where is ["a = 1"], and must be an object, such as where: {"public-a": "a = 1"}.'
    """
    # a part of an object may be a secret, such as a private key
    is_secret = '"secret": true' in json.dumps(setting)
    shown = "not shown here, because it is secret" if is_secret else _shown(value)
    example = next(iter(setting.get("examples", ())), None)
    such_as = f", such as {path[0]}: {json.dumps(example)}" if example is not None else ""
    return f"{_name(path)} is {shown}, and must be {wanted}{such_as}."


def _name(path: Sequence[str | int]) -> str:
    """Return a value's place in the configuration.

    >>> _name(["where", "public-orders"]), _name(["allow_duplicates", 0])
    ('where.public-orders', 'allow_duplicates[0]')
    """
    first, *rest = path
    return str(first) + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in rest)


def _wanted(error: SchemaError) -> str:
    value = error.validator_value
    if error.validator == "type":
        types = [value] if isinstance(value, str) else value
        return " or ".join(_TYPES[each] for each in types if each in _TYPES)
    if error.validator == "enum":
        return " or ".join(str(each) for each in value if each is not None)
    if error.validator == "additionalProperties" and (allowed := list(error.schema.get("properties", ()))):
        others = [str(key) for key in error.instance if key not in allowed]
        near = difflib.get_close_matches(others[0], allowed, n=1)
        hint = f"did you mean {near[0]}?" if near else f"its parts are {', '.join(allowed)}"
        return f"without {', '.join(others)} ({hint})"
    if error.validator in _LIMITS:
        return _LIMITS[error.validator].format(value)
    return f"valid: {error.message}"


def _shown(value: object) -> str:
    """Return a value as JSON, shortened."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
