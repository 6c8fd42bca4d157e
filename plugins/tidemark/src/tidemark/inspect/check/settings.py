"""Settings in YAML that no plugin has. Meltano passes them on, and tap and target refuse to start."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Literal

from singer_postgres.core import setting_names
from tidemark.inspect.check.finding import Finding, Level
from tidemark.project import definitions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.yaml_files import ProjectFiles

_SIDES: dict[str, Literal["source", "warehouse"]] = {"extractors": "source", "loaders": "warehouse"}
_TIMEOUT_S = 60


def unknown(project: Project, files: ProjectFiles) -> Iterator[Finding]:
    """Yield an error for each key under `config` that is not a setting of its plugin.

    Raises:
        UsageError: a plugin has no definition.
    """
    for kind, plugin in files.plugins():
        name = plugin["name"]
        definition = definitions.read(project, files, kind, name)
        # keys that begin with an underscore are Meltano's own
        configs = [
            {key: value for key, value in config.items() if not str(key).startswith("_")}
            for config in files.configs(kind, name)
        ]
        known = {*definition.settings}
        if any(setting_names.unknown(config, known) for config in configs):
            # the definition only has the most used settings, and the plugin itself knows all
            known |= _of_schema(definition.program) if kind in _SIDES and definition.program else set()
        for key, meant in dict.fromkeys(each for config in configs for each in setting_names.unknown(config, known)):
            hint = f"; {meant} is one" if meant else ""
            what = f"`{key}` under `config` of {name} is not a setting{hint}: correct or remove it"
            yield Finding(_SIDES.get(kind, "both"), Level.error, what)


def _of_schema(program: Path) -> set[str]:
    """Return the settings that a tap or target reports with --about; an empty set if that fails."""
    try:
        done = subprocess.run(
            [program, "--about", "--format=json"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
        properties: dict[str, Any] = json.loads(done.stdout)["settings"]["properties"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return set()
    return {name for name, _ in setting_names.settings(properties)}
