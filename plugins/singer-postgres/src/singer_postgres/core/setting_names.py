"""Names of settings: those of a plugin's JSON schema, and those of a configuration that are not among them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


def settings(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each setting of a JSON schema with its full name, such as `ssh_tunnel.host`."""
    for name, value in sorted(properties.items()):
        # in an object with a schema for what else it holds, the keys are names of streams or columns
        named = value.get("properties") if not isinstance(value.get("additionalProperties"), dict) else None
        if named:
            yield from settings(named, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def unknown(config: Mapping[str, Any], known: Collection[str]) -> list[tuple[str, str | None]]:
    """Return the full names in a configuration that are not in `known`, each with the most similar known name."""
    return [
        (name, next(iter(difflib.get_close_matches(name, known, n=1)), None))
        for name in _names(config, known)
        if name not in known
    ]


def _names(config: Mapping[str, Any], known: Collection[str], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if any(each.startswith(f"{name}.") for each in known):
            yield from _names(value, known, f"{name}.") if isinstance(value, dict) else ()
        elif not any(name.startswith(f"{each}.") for each in known):
            yield name
