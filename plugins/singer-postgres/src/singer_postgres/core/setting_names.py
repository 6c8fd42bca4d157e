"""Names of settings: those of a plugin's JSON schema, and those of a configuration that are not among them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

# settings that map or list streams
BY_STREAM = ("allow_duplicates", "change_history", "commit_columns", "masks", "stream_options", "where")
# how similar a name must be to count as a misspelt stream; `public-order` and `public-orders` are similar enough
_ALIKE = 0.85


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


def meant_stream(stream: str, known: Collection[str]) -> str | None:
    """Return the stream whose name a setting seems to misspell; None if no name is similar."""
    without_schema = {name.partition("-")[2]: name for name in known}
    near = difflib.get_close_matches(stream, known, n=1, cutoff=_ALIKE)
    return without_schema.get(stream) or next(iter(near), None)


def _names(config: Mapping[str, Any], known: Collection[str], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if any(each.startswith(f"{name}.") for each in known):
            yield from _names(value, known, f"{name}.") if isinstance(value, dict) else ()
        elif not any(name.startswith(f"{each}.") for each in known):
            yield name
