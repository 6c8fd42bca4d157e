"""Reads Meltano's definitions of plugins: lock files below plugins/, selected by the plugin's variant in the YAML."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.yaml_files import ProjectFiles


@dataclass(frozen=True)
class Definition:
    """Meltano's definition of a plugin.

    Attributes:
        settings: each setting's default, by name.
        program: the plugin's executable in its own virtual environment; None if it has no such environment.
        commands: the names of its commands.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    program: Path | None = None
    commands: frozenset[str] = frozenset()


def read(project: Project, files: ProjectFiles, kind: str, name: str) -> Definition:
    """Return a plugin's definition; an empty one if the project does not have the plugin.

    Args:
        kind: Meltano's name of the kind, such as extractors.

    Raises:
        UsageError: the project has no definition of the plugin. Meltano would then download one from its Hub.
    """
    plugin = files.plugin(kind, name)
    if not plugin:
        return Definition()
    parent = plugin.get("inherit_from")
    if parent and "variant" not in plugin and parent != name and files.plugin(kind, parent):
        inherited = read(project, files, kind, parent)
    elif "namespace" in plugin and not parent:
        # a custom plugin: the YAML has its whole definition
        inherited = _made_of(project, kind, plugin)
    else:
        inherited = _made_of(project, kind, _lock(project, kind, parent or name, plugin.get("variant")))
    commands = inherited.commands | {*(plugin.get("commands") or ())}
    return replace(inherited, settings=inherited.settings | _defaults(plugin), commands=commands)


def _made_of(project: Project, kind: str, definition: dict[str, Any]) -> Definition:
    program = None
    if definition.get("pip_url"):
        name = definition["name"]
        program = project.plugins / kind / name / "venv" / "bin" / (definition.get("executable") or name)
    return Definition(_defaults(definition), program, frozenset(definition.get("commands") or ()))


def _defaults(definition: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in definition.get("settings") or ()}


def _lock(project: Project, kind: str, name: str, variant: str | None) -> dict[str, Any]:
    directory = project.root / "plugins" / kind
    path = directory / f"{name}--{variant}.lock"
    try:
        if variant:
            return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}; correct it.") from None
    known = [each.stem.partition("--")[2] for each in directory.glob(f"{name}--*.lock")]
    # of the tap's two, the one for a plugin of this name
    known.sort(key=lambda each: (each != "tidemark", each))
    what = f"its variant is {variant!r}, and there is no {path}" if variant else "it names no variant"
    advice = f"set `variant: {known[0]}`" if known else f"`meltano add {name}` adds the one of Meltano Hub"
    raise UsageError(f"The plugin {name} has no definition: {what}; {advice}.")
