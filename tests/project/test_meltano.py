"""The plugins as Meltano knows them: definitions in lock files, choices in YAML, and nobody asked over a network."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from meltano.core.migration_service import MigrationService

from tests.conftest import AS_CLONED, REPOSITORY
from tests.second_source import select_streams
from tidemark.project import meltano_database
from tidemark.project.new_source import NewSource, raw_schema
from tidemark.release import definitions

PLUGINS = [
    (kind, plugin)
    for path in sorted(AS_CLONED.glob("*/*.meltano.yml"))
    for kind, plugins in yaml.safe_load(path.read_text()).get("plugins", {}).items()
    for plugin in plugins
]
PROGRAM = Path(__file__).with_name("plugin_environments.py")


@pytest.mark.parametrize(("kind", "plugin"), PLUGINS, ids=[plugin["name"] for _, plugin in PLUGINS])
def test_a_plugin_without_a_variant_or_its_lock_file_is_refused_as_meltano_would_ask_its_hub(kind, plugin):
    assert "variant" in plugin
    path = REPOSITORY / "plugins" / kind / f"{plugin['name']}--{plugin['variant']}.lock"
    lock = json.loads(path.read_text())
    assert (lock["plugin_type"], lock["name"], lock["variant"]) == (kind, plugin["name"], plugin["variant"])
    # Meltano drops it
    assert "env" not in lock


@pytest.mark.parametrize("plugin", [plugin for _, plugin in PLUGINS], ids=[plugin["name"] for _, plugin in PLUGINS])
def test_yaml_holds_what_a_person_chooses_and_no_definition(plugin):
    assert set(plugin) <= {"name", "variant", "config", "select", "metadata", "env"}


def test_the_lock_files_are_what_the_generator_gives():
    generated = definitions.lock_files(definitions.from_source)
    there = {path.relative_to(REPOSITORY).as_posix(): path.read_text() for path in REPOSITORY.glob("plugins/*/*.lock")}
    assert there == generated, "run `make definitions`"


def test_a_project_with_wheels_differs_only_in_where_our_packages_are_installed_from():
    clone, made = (
        {name: json.loads(text) for name, text in definitions.lock_files(requirement).items()}
        for requirement in (definitions.from_source, definitions.from_wheels("1.2.3"))
    )
    assert clone.keys() == made.keys()
    urls = {
        each["name"]: (clone[name].pop("pip_url"), each.pop("pip_url"))
        for name, each in made.items()
        if "pip_url" in each
    }
    assert clone == made
    assert urls["tap-postgres"] == (
        "-r plugins/requirements/tap-postgres.txt -b plugins/requirements/build.txt -e plugins/singer-postgres[tap]",
        "-r plugins/requirements/tap-postgres.txt wheelhouse/tidemark_singer_postgres-1.2.3-py3-none-any.whl[tap]",
    )


def test_every_lock_file_is_of_a_plugin():
    locks = {path.relative_to(REPOSITORY / "plugins").as_posix() for path in REPOSITORY.glob("plugins/*/*.lock")}
    of_plugins = {f"{kind}/{plugin['name']}--{plugin['variant']}.lock" for kind, plugin in PLUGINS}
    # the parent of all further sources
    assert locks == of_plugins | {"extractors/tap-postgres--bare.lock"}


def test_the_parent_of_further_sources_is_the_tap_without_a_database():
    first, bare = (
        json.loads((REPOSITORY / f"plugins/extractors/tap-postgres--{variant}.lock").read_text())
        for variant in ("tidemark", "bare")
    )
    settings, values = ({each["name"]: each.get("value") for each in lock.pop("settings")} for lock in (first, bare))
    assert settings.keys() == values.keys()
    assert {name for name in settings if settings[name] != values[name]} == {
        "host",
        "port",
        "database",
        "filter_schemas",
    }
    assert (values["host"], values["database"], values["filter_schemas"]) == (None, None, None)
    assert first | {"variant": "bare"} == bare


# by kind: as a variable has it, and as the plugin gets it
SAMPLES = {
    "array": ('["a", "b"]', ["a", "b"]),
    "boolean": ("true", True),
    "integer": ("7", 7),
    "object": ('{"a": {"b": "c"}}', {"a": {"b": "c"}}),
    "string": ("some text", "some text"),
    None: ("some text", "some text"),
}


def samples() -> tuple[dict[str, str], dict[str, dict]]:
    """Return a variable for each setting of each plugin, and the configurations that they make."""
    variables, configurations = {}, {}
    for kind, plugin in PLUGINS:
        lock = json.loads((REPOSITORY / "plugins" / kind / f"{plugin['name']}--{plugin['variant']}.lock").read_text())
        configurations[plugin["name"]] = {}
        for setting in lock.get("settings", []):
            name = re.sub(r"\W", "_", f"{plugin['name']}_{setting['name']}").upper()
            variables[name], value = SAMPLES[setting.get("kind")]
            *parents, last = setting["name"].split(".")
            inside = configurations[plugin["name"]]
            for parent in parents:
                inside = inside.setdefault(parent, {})
            inside[last] = value
    return variables, configurations


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    """What Meltano gives each plugin without variables, and with all of `samples`.

    There is no network, and the user is logged in at Meltano Cloud. The documentation's second source is there too.
    """
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(AS_CLONED, root, dirs_exist_ok=True)
    for path in REPOSITORY.glob("plugins/*/*.lock"):
        copy = root / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for name, text in NewSource("crm", raw_schema("crm")).files.items():
        (root / name).write_text(text)
    select_streams(root)
    login = root / "login.json"
    login.write_text('{"access_token": "x"}')
    done = subprocess.run(
        [sys.executable, PROGRAM],
        cwd=root,
        env={"PATH": "/usr/bin:/bin", "HOME": str(root), "MELTANO_CLOUD_CREDENTIALS_PATH": str(login)},
        input=json.dumps(samples()[0]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_plugin_gets_what_it_got_when_the_yaml_held_its_definition_and_nobody_asks_a_hub(environments):
    assert environments[0] == json.loads(PROGRAM.with_suffix(".json").read_text())


def test_every_setting_can_be_set_by_its_variable(environments):
    _, configurations = samples()
    found = {name: plugin["config"] for name, plugin in environments[1].items()}
    assert {name: found[name] for name in configurations} == configurations
    # and no variable of the first source reaches a second one
    assert found["tap-crm"] == environments[0]["tap-crm"]["config"]
    # all sources share the warehouse
    assert found["target-crm"] == configurations["target-postgres"] | {"default_target_schema": "raw_crm"}


def test_an_interruption_while_meltanos_database_is_made_leaves_none_and_the_next_run_makes_it(tmp_path, monkeypatch):
    path = tmp_path / "meltano.db"
    upgrade = MigrationService.upgrade

    def interrupted(*arguments, **options):
        upgrade(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(MigrationService, "upgrade", interrupted)
    with pytest.raises(KeyboardInterrupt):
        meltano_database.make(path)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    meltano_database.make(path)
    assert list(tmp_path.iterdir()) == [path]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("select count(*) from state").fetchone() == (0,)
    # one that is there stays
    before = path.stat()
    meltano_database.make(path)
    assert path.stat() == before
