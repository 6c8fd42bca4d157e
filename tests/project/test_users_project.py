"""Rules that hold for any project, on the user's own files: what one names, another has."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import AS_CLONED, REPOSITORY, shop_is_as_cloned

# by default the clone that these tests are in
PROJECT = Path(os.environ.get("TESTED_PROJECT") or REPOSITORY)
TIDEMARK = PROJECT / ".venv/bin/tidemark"
DBT = PROJECT / ".meltano/utilities/dbt-postgres/venv/bin/tidemark-dbt"
MELTANO = yaml.safe_load((PROJECT / "meltano.yml").read_text())
FILES = {
    path.relative_to(PROJECT).as_posix(): yaml.safe_load(path.read_text()) or {}
    for pattern in MELTANO["include_paths"]
    for path in sorted(PROJECT.glob(pattern))
}
PLUGINS = {
    plugin["name"]: (kind, plugin)
    for content in FILES.values()
    for kind, plugins in content.get("plugins", {}).items()
    for plugin in plugins
}
JOBS = {job["name"]: job for content in FILES.values() for job in content.get("jobs", [])}
SCHEDULES = [each for content in FILES.values() for each in content.get("schedules", [])]
# a table that several of these tests name
UNIQUE = {"unique", "unique_together", "unique_combination_of_columns"}


def definition(name: str) -> dict[str, Any]:
    """Return the lock file of a plugin, or of the one that it inherits from."""
    kind, plugin = PLUGINS[name]
    if "inherit_from" in plugin:
        return definition(plugin["inherit_from"])
    return json.loads((PROJECT / "plugins" / kind / f"{name}--{plugin['variant']}.lock").read_text())


def taps() -> list[dict[str, Any]]:
    return [plugin for kind, plugin in PLUGINS.values() if kind == "extractors"]


def test_every_included_path_has_a_file():
    for pattern in MELTANO["include_paths"]:
        assert list(PROJECT.glob(pattern)), f"meltano.yml includes {pattern}, which matches no file"


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_has_a_definition(name):
    assert definition(name)["plugin_type"] == PLUGINS[name][0]


@pytest.mark.parametrize("tap", taps(), ids=lambda tap: tap["name"])
def test_every_stream_with_a_replication_method_is_selected(tap):
    metadata = tap.get("metadata") or {}
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    selected = {pattern.rpartition(".")[0] for pattern in tap.get("select", [])}
    assert {name for name in metadata if "*" not in name} <= selected or any("*" in name for name in selected)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_every_task_of_a_job_names_a_plugin_and_its_command(job):
    for task in job["tasks"]:
        for word in (task if isinstance(task, str) else " ".join(task)).split():
            name, _, command = word.partition(":")
            assert name in PLUGINS, f"{job['name']} runs {name}, which is no plugin of this project"
            assert not command or command in definition(name)["commands"], f"{name} has no command {command}"


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule["name"])
def test_every_schedule_names_a_job(schedule):
    assert schedule.get("job", next(iter(JOBS))) in JOBS


@pytest.fixture(scope="module")
def exported() -> dict[str, Any]:
    """What Airflow makes DAGs of: the schedules, and the streams of each source."""
    return json.loads((PROJECT / "orchestrate" / "schedules.json").read_text())


def test_the_schedules_that_airflow_reads_are_meltanos():
    before = (PROJECT / "orchestrate" / "schedules.json").read_text()
    # in a separate process, because Meltano caches what it read of a project
    done = subprocess.run([TIDEMARK, "schedules"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert before == done.stdout, "a file of Meltano's changed; this wrote it again, so commit it"


@pytest.mark.parametrize("name", ["meltano.yml", *FILES])
def test_every_variable_of_meltanos_files_is_known(name):
    text = re.sub(r"^ *#.*$", "", (PROJECT / name).read_text(), flags=re.MULTILINE)
    known = (PROJECT / ".env.example").read_text()
    known += (PROJECT / ".env").read_text() if (PROJECT / ".env").exists() else ""
    for variable in re.findall(r"\$\{?([A-Z][A-Z0-9_]+)", text):
        named = re.search(rf"^#?{variable}=", known, re.MULTILINE) or re.search(rf"^ +{variable}:", text, re.MULTILINE)
        assert named or variable in os.environ or variable.startswith("MELTANO_"), (
            f"{name} has ${variable}: list it in .env.example"
        )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> dict[str, Any]:
    """What dbt reads of the project, which also resolves each var(), env_var(), ref() and source()."""
    target = tmp_path_factory.mktemp("target")
    transform = PROJECT / "transform"
    command = [DBT, "--quiet", "--no-partial-parse", "parse", "--project-dir", transform]
    command += ["--profiles-dir", transform / "profiles", "--target-path", target, "--log-path", target]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((target / "manifest.json").read_text())


def loaded_tables(exported: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Return the streams by raw schema and table; a pattern of several is left out."""
    return {
        (source["schema"], stream.partition("-")[2]): stream
        for source in exported["sources"]
        for stream in source["streams"]
        if "*" not in stream
    }


def sources(manifest: dict[str, Any]) -> set[tuple[str, str]]:
    return {(source["schema"], source["identifier"]) for source in manifest["sources"].values()}


def test_every_stream_is_a_source_of_dbt(manifest, exported):
    missing = {stream for table, stream in loaded_tables(exported).items() if table not in sources(manifest)}
    assert not missing, "describe their tables as sources in transform/models/staging"


def test_every_source_of_dbt_in_a_raw_schema_is_a_stream(manifest, exported):
    if any("*" in stream for source in exported["sources"] for stream in source["streams"]):
        pytest.skip("a pattern selects streams, and only the source knows which")
    schemas = {source["schema"] for source in exported["sources"]}
    named = {table for table in sources(manifest) if table[0] in schemas and not table[1].startswith("_tidemark_")}
    assert named <= loaded_tables(exported).keys(), "no stream loads them: select it in extract/, or remove the source"


def test_every_model_has_a_key_that_is_tested(manifest):
    keyed = {
        node["attached_node"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test" and (node.get("test_metadata") or {}).get("name") in UNIQUE
    }
    models = {
        name: node
        for name, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and node["package_name"] == manifest["metadata"]["project_name"]
    }
    assert not {node["original_file_path"] for name, node in models.items() if name not in keyed}, (
        "give a column of each the data test `unique`, or the model one of a combination of columns"
    )


@pytest.mark.skipif(
    PROJECT != REPOSITORY or not shop_is_as_cloned(),
    reason="the project is a user's: it has a project_id of its own, or no shop",
)
def test_the_copies_of_a_new_clones_files_are_up_to_date():
    copies = {path.relative_to(AS_CLONED).as_posix() for path in AS_CLONED.rglob("*") if path.is_file()}
    for name in copies:
        assert (AS_CLONED / name).read_bytes() == (REPOSITORY / name).read_bytes(), (
            f"copy {name} to demo/project; or, in a project of your own, give it its own project_id in meltano.yml"
        )
