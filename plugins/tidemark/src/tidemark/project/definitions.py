"""Meltano's definitions of plugins: lock files below plugins/, which the YAML names by the variant."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.yaml_files import ProjectFiles


@dataclass(frozen=True)
class Definition:
    """What Meltano knows of a plugin.

    Attributes:
        settings: the default of each, by its name.
        program: its executable in its own environment; None if it has none there.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    program: Path | None = None


def read(project: Project, files: ProjectFiles, kind: str, name: str) -> Definition:
    """Return the definition of a plugin; an empty one if the project does not have the plugin.

    Args:
        kind: as Meltano names it, such as extractors.

    Raises:
        UsageError: it has no definition, for which Meltano would ask its Hub.
    """
    plugin = files.plugin(kind, name)
    if not plugin:
        return Definition()
    parent = plugin.get("inherit_from")
    if parent and "variant" not in plugin and parent != name and files.plugin(kind, parent):
        inherited = read(project, files, kind, parent)
    elif "namespace" in plugin and not parent:
        # all of it is in the YAML
        inherited = _made_of(project, kind, plugin)
    else:
        inherited = _made_of(project, kind, _lock(project, kind, parent or name, plugin.get("variant")))
    return replace(inherited, settings=inherited.settings | _defaults(plugin))


def _made_of(project: Project, kind: str, definition: dict[str, Any]) -> Definition:
    program = None
    if definition.get("pip_url"):
        name = definition["name"]
        program = project.plugins / kind / name / "venv" / "bin" / (definition.get("executable") or name)
    return Definition(_defaults(definition), program)


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
        raise UsageError(f"{path} can't be read: {' '.join(str(error).split())}; correct it.") from None
    known = sorted(each.stem.partition("--")[2] for each in directory.glob(f"{name}--*.lock"))
    what = f"its variant is {variant!r}, and there is no {path}" if variant else "it names no variant"
    advice = f"set `variant: {known[0]}`" if known else f"`meltano add {name}` makes one of Meltano Hub's"
    raise UsageError(f"The plugin {name} has no definition: {what}; {advice}.")
