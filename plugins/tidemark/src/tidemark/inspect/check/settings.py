"""Keys in YAML that have no effect: settings that no plugin has, and misspelt keys of Meltano.

Meltano passes unknown settings on, and tap and target refuse to start. It does not complain about other unknown keys.
"""

from __future__ import annotations

import difflib
import json
import subprocess
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from singer_postgres.core import setting_names
from tidemark.errors import UsageError
from tidemark.inspect.check.finding import Finding, Level
from tidemark.project import definitions, schedules, sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tidemark.project.directory import Project
    from tidemark.project.yaml_files import ProjectFiles

_SIDES: dict[str, Literal["source", "warehouse"]] = {"extractors": "source", "loaders": "warehouse"}
_TIMEOUT_S = 60
# the keywords of JSON schema that refuse keys
_REFUSE_KEYS = ("additionalProperties", "unevaluatedProperties")
# how similar a key must be to count as misspelt, as `selct` is to `select`
_ALIKE = 0.8


def findings(project: Project, files: ProjectFiles) -> Iterator[Finding]:
    """Yield an error for each key that has no effect, and for each value of a schedule of ours that can't be used.

    Raises:
        UsageError: a plugin has no definition.
    """
    yield from misspelt_keys(project, files)
    yield from unknown(project, files)
    yield from _shards(project, files)


def _shards(project: Project, files: ProjectFiles) -> Iterator[Finding]:
    """Yield an error for each number of shards that can't be, or that would share nothing."""
    jobs = {job["name"]: job.get("tasks") or () for each in files.documents for job in each.get("jobs") or ()}
    loads = [source.blocks for source in sources.read_with_faults(project)[0]]
    for schedule in (each for document in files.documents for each in document.get("schedules") or ()):
        name = schedule["name"]
        try:
            count = schedules.shards(name, schedule.get("shards", 1))
        except UsageError as error:
            yield Finding("both", Level.error, str(error).rstrip("."))
            continue
        pair = f"{schedule.get('extractor')} {schedule.get('loader')}"
        tasks = jobs.get(schedule.get("job"), [pair])
        tasks = [" ".join(_blocks(task)) for task in ([tasks] if isinstance(tasks, str) else tasks)]
        if count > 1 and not set(tasks) & set(loads):
            what = (
                f"The schedule {name} has shards {count}, and no task of it is the load of a source and nothing else, "
                f"so no load is shared: write such a task ({' or '.join(loads)}) on a line of its own, or leave out "
                "shards (orchestrate/)"
            )
            yield Finding("both", Level.error, what)


def _blocks(task: Any) -> list[str]:
    """Return the blocks of a job's task, which is a text or a list of such."""
    return [block for each in task for block in _blocks(each)] if isinstance(task, list) else str(task).split()


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


def misspelt_keys(project: Project, files: ProjectFiles) -> Iterator[Finding]:
    """Yield an error for each key of the project's files that Meltano does not know and that resembles one it knows.

    Other unknown keys are left alone: Meltano's schema is for editors and lacks some keys that Meltano reads, and a
    plugin may have keys of its own.
    """
    # only this check needs it
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]  # noqa: PLC0415

    schema = json.loads((resources.files("meltano") / "schemas" / "meltano.schema.json").read_text())
    # ours; see docs/how-to/machines.md
    schema["$defs"]["schedules"]["properties"]["shards"] = {}
    validator = validator_for(schema)(schema)
    for document, path in zip(files.documents, files.paths, strict=True):
        for error in validator.iter_errors(_with_text_keys(document)):
            if error.validator not in _REFUSE_KEYS:
                continue
            known = _keys(schema, error.schema)
            place = " of ".join((*_owner(error.instance), str(path.relative_to(project.root))))
            for key in sorted(error.instance.keys() - known):
                if meant := difflib.get_close_matches(key, known - error.instance.keys(), n=1, cutoff=_ALIKE):
                    what = f"`{key}` of {place} is not a key of Meltano; {meant[0]} is one: correct or remove it"
                    yield Finding("both", Level.error, what)


def _with_text_keys(value: Any) -> Any:
    """Return a YAML value in which all keys are texts, as in JSON: YAML takes `1` and `on` for other types."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_text_keys(each) for each in value]
    return value


def _owner(instance: dict[str, Any]) -> tuple[str, ...]:
    """Return the name of the entry that has the key, such as a plugin's; none at a file's top level."""
    return (str(instance["name"]),) if "name" in instance else ()


def _keys(schema: dict[str, Any], part: dict[str, Any]) -> set[str]:
    """Return the keys that a part of a JSON schema describes, itself or through the parts that it includes."""
    if reference := part.get("$ref"):
        found = schema
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        return _keys(schema, found)
    return {*part.get("properties", ())}.union(*(_keys(schema, each) for each in part.get("allOf", ())))


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
