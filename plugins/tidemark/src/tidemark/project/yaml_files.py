"""Reads meltano.yml and the files that it includes, for the configuration of tap, target and dbt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.project.directory import Project


@dataclass(frozen=True)
class ProjectFiles:
    """The project's YAML files. The first of `documents` is meltano.yml."""

    documents: list[dict[str, Any]] = field(default_factory=list)

    def setting(self, name: str) -> str | None:
        """Return one of the project's own settings, such as default_environment."""
        found = self.documents[0].get(name) if self.documents else None
        return None if found is None else str(found)

    def plugin(self, name: str) -> dict[str, Any]:
        """Return a plugin's definition; an empty dict if no file has it."""
        for document in self.documents:
            for plugins in (document.get("plugins") or {}).values():
                for plugin in plugins or ():
                    if plugin.get("name") == name:
                        return dict(plugin)
        return {}

    def configures(self, name: str) -> bool:
        """Return whether anything but variables and defaults may affect a plugin's settings."""
        plugin = self.plugin(name)
        environments = [each for document in self.documents for each in document.get("environments") or ()]
        return bool(
            any(document.get("env") for document in self.documents)
            or any(each.get("config") or each.get("env") for each in environments)
            or any(plugin.get(key) for key in ("config", "env", "inherit_from"))
        )


def read(project: Project) -> ProjectFiles:
    """Read the files.

    Raises:
        UsageError: a file can't be read.
    """
    path = project.root / "meltano.yml"
    if not path.exists():
        return ProjectFiles()
    first = _read(path)
    included = [each for pattern in first.get("include_paths") or () for each in sorted(project.root.glob(pattern))]
    return ProjectFiles([first, *(_read(each) for each in included if each.is_file())])


def _read(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415  (not every command needs it)

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - a safe one
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read: {' '.join(str(error).split())}; correct it.") from None
    return found if isinstance(found, dict) else {}
