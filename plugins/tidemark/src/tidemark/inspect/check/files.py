"""Rules that hold for any project, on the user's own files: what one file names, another has. They ask no database."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from tidemark.errors import TidemarkError, UsageError
from tidemark.inspect.check import settings
from tidemark.inspect.check.finding import Finding, Level
from tidemark.project import definitions, schedules, sources, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tidemark.project.directory import Project
    from tidemark.project.yaml_files import ProjectFiles

# dbt's data tests that hold a key
_UNIQUE = {"unique", "unique_together", "unique_combination_of_columns"}
_VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]+)")
_DBT = "dbt-postgres"


def check(project: Project) -> list[Finding]:
    """Return the findings about the project's files: an error for each rule that one breaks.

    Raises:
        UsageError: a file can't be read.
    """
    files = yaml_files.read(project)
    found = list(settings.findings(project, files))
    wrong = [
        *(fault.what for fault in [*sources.read_with_faults(project)[1], *sources.stray_variables(project)]),
        *of_meltano(project, files),
    ]
    try:
        wrong += of_models(_manifest(project, files), _exported(project))
    except TidemarkError as error:
        wrong.append(str(error))
    return [*found, *(Finding("both", Level.error, what.rstrip(".")) for what in dict.fromkeys(wrong))]


def of_meltano(project: Project, files: ProjectFiles) -> Iterator[str]:
    """Yield what is wrong in Meltano's files."""
    for pattern in files.documents[0].get("include_paths") or ():
        if not list(project.root.glob(pattern)):
            yield f"meltano.yml includes {pattern}, which matches no file"
    commands = {}
    for kind, plugin in files.plugins():
        try:
            commands[plugin["name"]] = definitions.read(project, files, kind, plugin["name"]).commands
        except UsageError as error:
            yield str(error)
        if kind == "extractors":
            yield from _unselected(plugin)
    yield from _jobs(files, commands)
    if not schedules.is_current(project):
        yield f"{schedules.FILE} is not what Meltano's files say: `tidemark schedules` writes it again; commit it"
    yield from _unknown_variables(project, files)


def _unselected(tap: Mapping[str, Any]) -> Iterator[str]:
    metadata = tap.get("metadata") or {}
    named = json.loads(metadata) if isinstance(metadata, str) else metadata
    selected = {str(pattern).rpartition(".")[0] for pattern in tap.get("select") or ()}
    if any("*" in name for name in selected):
        return
    for name in sorted(name for name in named if "*" not in name and name not in selected):
        yield f"{tap['name']} has `metadata` for {name}, which its `select` does not have"


def _jobs(files: ProjectFiles, commands: Mapping[str, frozenset[str]]) -> Iterator[str]:
    jobs = [job for document in files.documents for job in document.get("jobs") or ()]
    for job in jobs:
        for task in job.get("tasks") or ():
            for word in (task if isinstance(task, str) else " ".join(task)).split():
                name, _, command = word.partition(":")
                if name not in commands:
                    yield f"job {job['name']} runs {name}, which is no plugin of this project"
                elif command and command not in commands[name]:
                    known = ", ".join(sorted(commands[name]))
                    yield f"job {job['name']} runs {word}, and {name} has no such command; it has {known}"
    known_jobs = {job["name"] for job in jobs}
    for schedule in (each for document in files.documents for each in document.get("schedules") or ()):
        if "job" in schedule and schedule["job"] not in known_jobs:
            there = ", ".join(sorted(known_jobs)) or "none"
            yield f"schedule {schedule['name']} names the job {schedule['job']}, which is not there; jobs are {there}"


def _unknown_variables(project: Project, files: ProjectFiles) -> Iterator[str]:
    listed = "".join(
        path.read_text(encoding="utf-8") for path in (project.root / ".env.example", project.dotenv) if path.exists()
    )
    for path in files.paths:
        text = re.sub(r"^ *#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for variable in dict.fromkeys(_VARIABLE.findall(text)):
            known = re.search(rf"^#?{variable}=", listed, re.MULTILINE)
            known = known or re.search(rf"^ +{variable}:", text, re.MULTILINE)
            if not (known or variable in os.environ or variable.startswith("MELTANO_")):
                name = path.relative_to(project.root)
                yield f"{name} has ${variable}, which neither .env.example nor `env` there has; correct its name"


def _exported(project: Project) -> dict[str, Any]:
    """Return the schedules and sources as Airflow reads them.

    Raises:
        UsageError: the file is missing, or is no JSON.
    """
    try:
        found: dict[str, Any] = json.loads((project.root / schedules.FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{schedules.FILE} can't be read: {one_line(error)}; `tidemark schedules` writes it."
        ) from error
    return found


def _manifest(project: Project, files: ProjectFiles) -> dict[str, Any]:
    """Have dbt read its project, which also resolves each var(), env_var(), ref() and source(). Return its manifest.

    Raises:
        TidemarkError: dbt is not installed, or refuses the project.
    """
    program = definitions.read(project, files, "utilities", _DBT).program
    if program is None or not program.exists():
        raise TidemarkError(f"{_DBT} is not installed; run `make setup`.")
    transform = project.root / "transform"
    with tempfile.TemporaryDirectory() as target:
        # variables and not options, so that dbt's wrapper knows them, too
        places = {"PROJECT_DIR": transform, "PROFILES_DIR": transform / "profiles"}
        places |= {"TARGET_PATH": Path(target), "LOG_PATH": Path(target)}
        done = subprocess.run(
            [program, "--quiet", "--no-partial-parse", "parse"],
            cwd=project.root,
            env={**os.environ, **{f"DBT_{name}": str(path) for name, path in places.items()}},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = one_line((done.stdout + done.stderr).strip()) or "it gave no reason"
            raise TidemarkError(f"dbt refuses the project: {said}")
        found: dict[str, Any] = json.loads(Path(target, "manifest.json").read_text(encoding="utf-8"))
    return found


def of_models(manifest: Mapping[str, Any], exported: Mapping[str, Any]) -> Iterator[str]:
    """Yield streams without a source of dbt, sources without a stream, and models without a key that is tested.

    Args:
        manifest: dbt's.
        exported: the sources with their streams, as Airflow reads them.
    """
    described = {(source["schema"], source["identifier"]) for source in manifest["sources"].values()}
    streams = [(source["schema"], stream) for source in exported["sources"] for stream in source["streams"]]
    # a pattern of several tables says nothing here
    loaded = {(schema, stream.partition("-")[2]): stream for schema, stream in streams if "*" not in stream}
    for table, stream in sorted(loaded.items()):
        if table not in described:
            yield f"{stream} is no source of dbt: describe {'.'.join(table)} in transform/models/staging"
    schemas = {source["schema"] for source in exported["sources"]}
    if len(loaded) == len(streams):
        for schema, name in sorted(described - loaded.keys()):
            if schema in schemas and not name.startswith("_tidemark_"):
                yield f"no stream loads dbt's source {schema}.{name}: select it in extract/, or remove the source"
    nodes = manifest["nodes"]
    keyed = {
        node["attached_node"]
        for node in nodes.values()
        if node["resource_type"] == "test" and (node.get("test_metadata") or {}).get("name") in _UNIQUE
    }
    for name, node in sorted(nodes.items()):
        is_own = node["package_name"] == manifest["metadata"]["project_name"]
        if node["resource_type"] == "model" and is_own and name not in keyed:
            yield (
                f"transform/{node['original_file_path']} has no key that is tested: give a column the data test "
                "`unique`, or the model one of a combination of columns"
            )
