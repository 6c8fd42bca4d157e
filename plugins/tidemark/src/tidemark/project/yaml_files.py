"""Reads meltano.yml and the files that it includes, for the configuration of tap, target and dbt."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from tidemark.project.directory import Project


@dataclass(frozen=True)
class ProjectFiles:
    """The project's YAML files. The first of `documents` is meltano.yml; `paths` has the file of each."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def setting(self, name: str) -> str | None:
        """Return one of the project's own settings, such as default_environment."""
        found = self.documents[0].get(name) if self.documents else None
        return None if found is None else str(found)

    def plugins(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each plugin's kind, such as extractors, and its entry in the YAML."""
        for document in self.documents:
            for kind, plugins in (document.get("plugins") or {}).items():
                for plugin in plugins or ():
                    if isinstance(plugin, dict) and plugin.get("name"):
                        yield kind, plugin

    def plugin(self, kind: str, name: str) -> dict[str, Any]:
        """Return a plugin's entry; an empty dict if no file has it."""
        return next((plugin for each, plugin in self.plugins() if (each, plugin["name"]) == (kind, name)), {})

    def configs(self, kind: str, name: str) -> Iterator[dict[str, Any]]:
        """Yield each `config` of a plugin: from its entry, and from the environments."""
        in_environments = [
            plugin
            for environment in self._environments()
            for plugin in ((environment.get("config") or {}).get("plugins") or {}).get(kind) or ()
            if plugin.get("name") == name
        ]
        for plugin in (self.plugin(kind, name), *in_environments):
            yield plugin.get("config") or {}

    def ancestry(self, kind: str, name: str) -> list[dict[str, Any]]:
        """Return a plugin's entry and those of the project's plugins that it inherits from, the nearest first."""
        entries: list[dict[str, Any]] = []
        while (plugin := self.plugin(kind, name)) and plugin not in entries:
            entries.append(plugin)
            # with a variant, Meltano takes the definition from a lock file, and nothing from the project's plugin
            if "variant" in plugin or not plugin.get("inherit_from"):
                break
            name = plugin["inherit_from"]
        return entries

    def only_meltano_knows(self, kind: str, name: str, variables: Collection[str]) -> bool:
        """Return whether anything but variables, `config` of its entry and defaults may affect a plugin's settings.

        Args:
            variables: those of the settings in question. Under `env`, there may be others, such as PGTZ.
        """
        scopes = (*self.documents, *self._environments(), *self.ancestry(kind, name))
        return any(each.get("config") for each in self._environments()) or any(
            variable in variables for scope in scopes for variable in scope.get("env") or ()
        )

    def _environments(self) -> list[dict[str, Any]]:
        return [each for document in self.documents for each in document.get("environments") or ()]


def read(project: Project) -> ProjectFiles:
    """Read the files.

    Raises:
        UsageError: a file can't be read.
    """
    path = project.root / "meltano.yml"
    if not path.exists():
        return ProjectFiles()
    first = _read(path)
    included = [
        each
        for pattern in first.get("include_paths") or ()
        for each in sorted(project.root.glob(pattern))
        if each.is_file()
    ]
    return ProjectFiles([first, *map(_read, included)], [path, *included])


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}; correct it.") from None


@functools.lru_cache(maxsize=1024)
def _parsed(content: bytes) -> dict[str, Any]:
    """Return the content of a file. Commands read the files again for each source, and nobody changes what is returned.

    Raises:
        ValueError: it is not YAML.
    """
    import yaml  # noqa: PLC0415  (not every command needs it)

    try:
        found = yaml.load(content, Loader=_loader())  # noqa: S506 - a safe one
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark
        raise ValueError(
            f"line {at.line + 1}, column {at.column + 1}: {error.problem}" if at else one_line(error)
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from None
    return found if isinstance(found, dict) else {}


@functools.cache
def _loader() -> Any:
    """Return a loader that refuses duplicate keys, as Meltano does, but with a short error."""
    import yaml  # noqa: PLC0415

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def flatten_mapping(self, node: Any) -> None:
            # once: this puts the keys of merged mappings before those of the node
            if not hasattr(node, "is_checked"):
                node.is_checked = True
                seen: set[tuple[str, str]] = set()
                for key, _ in node.value:
                    if isinstance(key.value, str) and (key.tag, key.value) in seen:
                        said = f"duplicate key {key.value}"
                        raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
                    seen.add((key.tag, str(key.value)))
            super().flatten_mapping(node)

    return Loader
