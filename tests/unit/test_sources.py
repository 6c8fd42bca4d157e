"""The sources of a project: how they are found, what is refused, and what `tidemark source add` writes."""

from __future__ import annotations

import os

import pytest

from tidemark.errors import UsageError
from tidemark.project import database_settings, dotenv_file, new_source, sources, variables, yaml_edits
from tidemark.project.directory import Project
from tidemark.run.loads import in_turn
from tidemark.run.outcome import BlockOutcome, RunOutcome

FIRST = """
plugins:
  extractors:
    - {name: tap-postgres, variant: tidemark}
    - {name: tap-github, variant: meltanolabs}
  loaders:
    - {name: target-postgres, variant: tidemark}
"""
CRM = """
plugins:
  extractors:
    - {name: tap-crm, inherit_from: tap-postgres, variant: bare}
  loaders:
    - {name: target-crm, inherit_from: target-postgres, config: {default_target_schema: raw_crm}}
"""
JOBS = """\
jobs:
  - name: sync
    tasks:
      # the loads
      - tap-postgres target-postgres  # the shop
      - dbt-postgres:run
  - name: sync-and-transform
    tasks: [tap-postgres target-postgres, dbt-postgres:run]
  - name: backup
    tasks:
      - tidemark:backup  # at night
"""
LOCK = '{"name": "%s", "settings": [{"name": "host"}, {"name": "database"}, {"name": "default_target_schema"}]}'


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    for name in os.environ:
        if name.startswith(("TAP_", "TARGET_", "DBT_POSTGRES", "TIDEMARK", "MELTANO")):
            monkeypatch.delenv(name)
    (tmp_path / "meltano.yml").write_text("include_paths: ['*/*.meltano.yml']\ndefault_environment: dev\n")
    for kind, locks in (
        ("extractors", ("tap-postgres--tidemark", "tap-postgres--bare")),
        ("loaders", ("target-postgres--tidemark",)),
    ):
        (tmp_path / "plugins" / kind).mkdir(parents=True)
        for lock in locks:
            (tmp_path / "plugins" / kind / f"{lock}.lock").write_text(LOCK % lock.partition("--")[0])
    for name in ("extract", "load", "orchestrate"):
        (tmp_path / name).mkdir()
    (tmp_path / "extract/extractors.meltano.yml").write_text(FIRST)
    (tmp_path / "orchestrate/jobs.meltano.yml").write_text(JOBS)
    return Project(tmp_path)


def add(project, text: str, name: str = "crm") -> None:
    (project.root / f"extract/{name}.meltano.yml").write_text(text)


PAIR = """
plugins:
  extractors:
    - {name: tap-crm, inherit_from: tap-postgres, variant: bare}
    - {name: tap-crm_hr, inherit_from: tap-crm, annotations: {tidemark: {pair_of: crm}}}
  loaders:
    - {name: target-crm, inherit_from: target-postgres, config: {default_target_schema: raw_crm}}
    - {name: target-crm_hr, inherit_from: target-crm, config: {default_target_schema: raw_crm_hr}}
"""


def test_a_pair_reads_the_database_of_its_source_into_a_schema_of_its_own(project, monkeypatch):
    add(project, PAIR)
    crm = sources.find(project, "crm")
    assert [each.raw_schema for each in sources.with_pairs(project, crm)] == ["raw_crm", "raw_crm_hr"]
    monkeypatch.setenv("TAP_CRM_HOST", "db.example.com")
    monkeypatch.setenv("TAP_CRM_DATABASE", "crm")
    assert database_settings.source(project, sources.find(project, "crm_hr")).address == "db.example.com"
    # without the annotation, it would be another source that reads that database by accident
    add(project, PAIR.replace("pair_of", "copy_of"))
    with pytest.raises(UsageError, match="crm_hr inherits from tap-crm of the project"):
        sources.read(project)


@pytest.mark.parametrize("written", [[], ["load/crm.meltano.yml"]], ids=["nothing", "the target"])
def test_an_addition_that_was_killed_can_be_repeated(project, written):
    new = new_source.NewSource("crm", "raw_crm", {"HOST": "h", "DATABASE": "d"})
    for path in written:
        (project.root / path).write_text(new.files[path])
    new_source.refuse(project, new)
    assert list(new_source.add(project, new))
    assert sources.find(project, "crm").raw_schema == "raw_crm"


def test_a_source_is_a_tap_of_ours_with_the_target_of_its_name_and_the_first_comes_first(project):
    add(project, CRM)
    found = sources.read(project)
    assert [(each.name, each.tap, each.target, each.raw_schema) for each in found] == [
        ("postgres", "tap-postgres", "target-postgres", "raw"),
        ("crm", "tap-crm", "target-crm", "raw_crm"),
    ]
    assert found[1].shown("public-contacts") == "crm/public-contacts"


def test_a_target_of_another_name_is_found_in_a_job(project):
    add(project, CRM.replace("target-crm", "target-people"))
    (project.root / "orchestrate/more.meltano.yml").write_text("jobs: [{name: people, tasks: [tap-crm target-people]}]")
    assert sources.find(project, "crm").target == "target-people"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("name: target-crm", "name: target-x"), "Source crm has no target: add target-crm to load/"),
        (("raw_crm", "raw"), "Sources postgres and crm both load into schema raw"),
        ((", variant: bare", ""), "inherits from tap-postgres of the project"),
        (
            ("variant: bare", "variant: bare, config: {host: $TAP_POSTGRES_HOST}"),
            "takes its host from TAP_POSTGRES_HOST",
        ),
    ],
    ids=["no target", "one schema", "inherits from the first tap", "another source's variable"],
)
def test_a_mistake_is_one_line_and_stops_only_what_reads_that_source(project, change, said):
    add(project, CRM.replace(*change))
    with pytest.raises(UsageError, match=said.replace("$", r"\$")):
        sources.read(project)
    with pytest.raises(UsageError):
        sources.of_blocks(project, ["tap-crm", "target-crm"])
    assert len(sources.of_blocks(project, ["dbt-postgres:run"])) == 0


def test_a_retired_source_is_not_in_use_and_no_other_needs_its_name(project):
    add(project, CRM.replace("variant: bare", "variant: bare, annotations: {tidemark: {retired: '2026-11-29'}}"))
    assert [each.name for each in sources.active(project)] == ["postgres"]
    assert sources.active(project)[0].alone
    assert sources.find(project, "crm").retired == "2026-11-29"


def test_only_the_first_source_may_have_no_address(project, monkeypatch):
    add(project, CRM)
    monkeypatch.setenv("TAP_POSTGRES_HOST", "first.example")
    monkeypatch.setenv("TAP_POSTGRES_DATABASE", "first")
    crm = sources.find(project, "crm")
    with pytest.raises(
        UsageError, match="Source crm has no host and no database: set TAP_CRM_HOST and TAP_CRM_DATABASE"
    ):
        database_settings.source(project, crm)
    project.dotenv.write_text("TAP_CRM_HOST=crm.example\nTAP_CRM_DATABASE=crm\nTAP_CRM_PASSWORD=x\n")
    found = database_settings.source(project, crm)
    assert str(found).startswith("crm source database 'crm' on crm.example")
    assert found.variables()["TAP_CRM_PASSWORD"] == "x"


def test_a_variable_of_no_source_is_named_with_the_nearest_one(project, monkeypatch):
    add(project, CRM)
    for name in ("TAP_CMR_HOST", "TAP_CRM_PORT", "TAP_GITHUB_USER", "TAP_VERSION"):
        monkeypatch.setenv(name, "1")
    (stray,) = sources.stray_variables(project)
    assert stray.what == "TAP_CMR_HOST is set, and no source has it; did you mean TAP_CRM_HOST?"


def test_adding_a_source_writes_its_own_files_and_changes_one_line_a_job(project):
    project.dotenv.write_text("# mine\nOTHER=1")
    odd = "it's \\ ${x} # ü"
    new = new_source.NewSource(
        "crm-eu", new_source.raw_schema("crm-eu"), {"HOST": "h", "DATABASE": "d", "PASSWORD": odd}
    )
    new_source.refuse(project, new)
    list(new_source.add(project, new))
    crm = sources.find(project, "crm-eu")
    assert (crm.target, crm.raw_schema, crm.prefix) == ("target-crm-eu", "raw_crm_eu", "TAP_CRM_EU")
    assert database_settings.source(project, crm).password.get_secret_value() == odd
    assert project.dotenv.read_text().startswith("# mine\nOTHER=1\nTAP_CRM_EU_HOST=h\n")
    assert project.dotenv.stat().st_mode & 0o777 == 0o600
    path = project.root / "orchestrate/jobs.meltano.yml"
    assert "# the shop\n      - tap-crm-eu target-crm-eu\n      - dbt" in path.read_text()
    with pytest.raises(UsageError, match=r"Source crm-eu exists already: tap-crm-eu in extract/crm-eu\.meltano\.yml"):
        new_source.refuse(project, new)
    with pytest.raises(UsageError, match="has the variables TAP_CRM_EU_… already"):
        new_source.refuse(project, new_source.NewSource("crm_eu", "raw_other"))
    # and what was added can be removed again
    assert yaml_edits.remove_load(path, crm.blocks) == ["sync", "sync-and-transform"]
    assert [line.split() for line in path.read_text().splitlines()] == [line.split() for line in JOBS.splitlines()]


@pytest.mark.parametrize("name", ["", "Crm", "1crm", "crm eu", "warehouse", "postgres", "a" * 41])
def test_a_name_that_can_not_be_a_source_is_refused(project, name):
    with pytest.raises(UsageError, match=r"can't be called|exists already"):
        new_source.refuse(project, new_source.NewSource(name, "raw_x"))


@pytest.mark.parametrize("value", ["plain.example.com", "a b", "$x ${y} '\"\\", "ünï😀#", "=", "x'"])
def test_a_value_is_read_from_the_file_as_it_was_written(project, value):
    dotenv_file.write(project.dotenv, {"TAP_X_PASSWORD": value}, instead="")
    assert variables.read(project)["TAP_X_PASSWORD"] == value


def test_a_mark_leaves_all_other_lines_of_the_file_as_they_are(project):
    text = new_source.NewSource("crm", "raw_crm").files["extract/crm.meltano.yml"]
    add(project, text)
    yaml_edits.annotate_tap(project.root / "extract/crm.meltano.yml", "tap-crm", "retired", "2026-11-29")
    lines = (project.root / "extract/crm.meltano.yml").read_text().splitlines()
    lines.remove("      annotations: {tidemark: {retired: '2026-11-29'}}")
    assert lines == text.splitlines()


@pytest.mark.parametrize(
    ("fails", "ran"),
    [
        ((), ["a b models tests"]),
        (("a",), ["a b models tests", "b models tests"]),
        (("b",), ["a b models tests", "models tests"]),
        (("a", "b"), ["a b models tests", "b models tests"]),
        (("a", "models"), ["a b models tests", "b models tests"]),
    ],
    ids=["none", "the first", "the last", "all", "a source and the models"],
)
def test_a_source_that_fails_stops_no_other_and_models_need_one_that_was_loaded(fails, ran):
    outcome = RunOutcome([BlockOutcome(name) for name in ("a", "b", "models", "tests")])
    runs = []

    def meltano(blocks):
        runs.append(" ".join(block.names for block in blocks))
        for block in blocks:
            block.success = block.names not in fails
            if not block.success:
                break
        return RunOutcome(blocks)

    in_turn(outcome, 2, meltano)
    assert runs == ran
    assert outcome.ended_well is not bool(fails)
