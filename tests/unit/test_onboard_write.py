"""Writing a source's files: what a person edited stays, and a run that was killed is completed by the next one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import yaml

from tests.onboarding import CHILD, PARENT, column, proposal, table
from tidemark.errors import TidemarkError, UsageError
from tidemark.onboard import earlier, edit, write
from tidemark.onboard.generated import Options
from tidemark.onboard.manifest import Manifest
from tidemark.onboard.proposal import MaskProposal, Method, Question
from tidemark.onboard.write import Status
from tidemark.project.directory import Project


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


STAGING = "transform/models/staging/x/stg_x__child.sql"


def test_a_second_run_changes_nothing(project):
    assert write.write(project, proposal(PARENT, CHILD), dry_run=True).changes
    assert not list(project.root.iterdir())
    written = write.write(project, proposal(PARENT, CHILD))
    assert {each.status for each in written.files} == {Status.created}
    assert [(each.stream, each.kind) for each in written.tables] == [("public-parent", "new"), ("public-child", "new")]
    again = write.write(project, proposal(PARENT, CHILD))
    assert not again.changes
    assert again.tables == ()


@pytest.mark.parametrize("text", ["select 1 as edited\n", None], ids=["edited", "deleted"])
def test_what_a_person_edited_or_deleted_stays_and_is_shown_with_the_difference(project, text):
    write.write(project, proposal(PARENT, CHILD))
    path = project.root / STAGING
    path.unlink() if text is None else path.write_text(text)
    for _ in range(2):
        written = write.write(project, proposal(PARENT, CHILD))
        (edited,) = written.with_status(Status.edited)
        assert edited.path == STAGING
        assert "+    select * from {{ source('raw_x', 'child') }}" in edited.diff
        assert not written.changes
        assert (path.read_text() if path.exists() else None) == text


def test_a_file_that_was_there_before_is_not_overwritten(project):
    path = project.root / STAGING
    path.parent.mkdir(parents=True)
    path.write_text("select 1\n")
    written = write.write(project, proposal(PARENT, CHILD))
    (foreign,) = written.with_status(Status.foreign)
    assert foreign.path == STAGING
    assert path.read_text() == "select 1\n"


TAP = """\
# mine
plugins:
  extractors:
    - name: tap-x  # as I want it
      inherit_from: tap-postgres
      variant: bare
      config: {where: {public-parent: "id > 5"}}
      select:
        - public-parent.*
        - public-other.*
      # as the application does it
      metadata:
        public-parent: {replication-method: INCREMENTAL, replication-key: id}
"""


def test_a_tap_that_a_person_wrote_gets_what_it_lacks_and_keeps_the_rest(project):
    path = project.root / "extract/x.meltano.yml"
    path.parent.mkdir()
    path.write_text(TAP)
    write.write(project, proposal(PARENT, CHILD))
    kept, added = path.read_text(), "        - public-child.*\n      # as the application does it\n      metadata:\n"
    assert added in kept
    assert set(TAP.splitlines()) - set(kept.splitlines()) <= {'      config: {where: {public-parent: "id > 5"}}'}
    (tap,) = yaml.safe_load(kept)["plugins"]["extractors"]
    assert tap["config"]["where"] == {"public-parent": "id > 5"}
    assert not write.write(project, proposal(PARENT, CHILD)).changes
    # and what matches no table is taken out only if somebody says so
    options = Options(unmatched=("public-other.*",))
    assert write.write(project, proposal(PARENT, CHILD), options=options).changes
    assert "public-other" not in path.read_text()


def test_a_model_that_the_project_has_elsewhere_is_refused_before_anything_is_written(project):
    path = project.root / "transform/models/staging/stg_x__child.sql"
    path.parent.mkdir(parents=True)
    path.write_text("select 1\n")
    with pytest.raises(UsageError, match="stg_x__child"):
        write.write(project, proposal(PARENT, CHILD))
    assert not (project.root / "extract").exists()


def test_files_of_a_table_that_is_gone_stay_until_they_are_asked_to_go(project):
    write.write(project, proposal(PARENT, CHILD))
    gone = write.write(project, proposal(PARENT))
    assert [(each.stream, each.kind) for each in gone.tables] == [("public-child", "gone")]
    assert STAGING in {each.path for each in gone.with_status(Status.gone)}
    # the model still compiles: its source stays described
    sources = yaml.safe_load((project.root / "transform/models/staging/x/_sources.yml").read_text())["sources"]
    assert {each["name"] for each in sources[0]["tables"]} == {"parent", "child", "_tidemark_runs"}
    assert not write.write(project, proposal(PARENT)).changes
    removed = write.write(project, proposal(PARENT), remove_gone=True)
    assert STAGING in {each.path for each in removed.with_status(Status.removed)}
    assert not (project.root / STAGING).exists()
    sources = yaml.safe_load((project.root / "transform/models/staging/x/_sources.yml").read_text())["sources"]
    assert {each["name"] for each in sources[0]["tables"]} == {"parent", "_tidemark_runs"}


def test_an_edited_file_of_a_table_that_is_gone_is_never_removed(project):
    write.write(project, proposal(PARENT, CHILD))
    (project.root / STAGING).write_text("select 1 as edited\n")
    write.write(project, proposal(PARENT), remove_gone=True)
    assert (project.root / STAGING).read_text() == "select 1 as edited\n"


def test_columns_and_tables_that_are_new_renamed_retyped_or_gone_are_said(project):
    before = replace(CHILD, table=replace(CHILD.table, oid=7))
    write.write(project, proposal(PARENT, before))
    columns = (column("id", "bigint"), column("parent_id", "integer"), column("status"), column("more"))
    changed = replace(CHILD, table=replace(CHILD.table, oid=7, columns=columns, value_lists=()))
    (found,) = write.write(project, proposal(PARENT, changed)).tables
    assert found.kind == "changed"
    assert set(found.what) == {
        "column parent_id was bigint and is integer",
        "column state is status now",
        "column more is new",
    }
    renamed = replace(changed, table=replace(changed.table, name="kid"), raw_name="kid", model="stg_x__kid")
    found = write.write(project, proposal(PARENT, renamed)).tables
    assert [(each.stream, each.kind, each.what) for each in found] == [("public-kid", "renamed", ("was public-child",))]


@pytest.mark.parametrize("at", range(14))
def test_a_run_that_is_killed_at_any_file_is_completed_by_the_next_one(project, monkeypatch, at):
    write.write(project, proposal(PARENT))
    renames = iter(range(100))
    rename = type(project.root).replace

    def rename_or_die(self, target):
        if next(renames) == at:
            raise OSError(28, "No space left on device", str(self))
        return rename(self, target)

    with monkeypatch.context() as patched, suppress(TidemarkError):
        patched.setattr(type(project.root), "replace", rename_or_die)
        # who is killed tidies nothing up
        patched.setattr(type(project.root), "unlink", lambda *_, **__: None)
        write.write(project, proposal(PARENT, CHILD))
    # and then the source changes once more
    other = replace(CHILD, table=replace(CHILD.table, comment="other"))
    written = write.write(project, proposal(PARENT, other))
    assert not written.with_status(Status.edited, Status.foreign)
    assert not write.write(project, proposal(PARENT, other)).changes
    assert not list(project.root.rglob("*.onboarding"))
    assert not Manifest.read(write.manifest_path(project, "x")).writing


def test_two_tables_with_one_name_in_the_warehouse_are_refused(project):
    other = replace(PARENT, table=replace(PARENT.table, schema="other"), model="stg_x__other")
    with pytest.raises(UsageError, match=r"'raw_x\.parent'"):
        write.write(project, proposal(PARENT, other))


def test_yaml_beside_each_model_is_one_file_a_table(project):
    written = write.write(project, proposal(PARENT, CHILD), options=Options(yaml_per="table", marts="none"))
    assert {each.path.rpartition("/")[2] for each in written.files if "/staging/" in each.path} == {
        "_sources.yml",
        *("stg_x__parent.sql", "stg_x__parent.yml", "stg_x__child.sql", "stg_x__child.yml"),
    }


def test_tables_of_equal_names_get_a_pair_with_the_sources_connection_and_a_source_in_dbt(project):
    other = replace(
        PARENT,
        table=replace(PARENT.table, schema="other"),
        model="stg_x_other__parent",
        pair="x_other",
        raw_schema="raw_x_other",
    )
    write.write(project, proposal(PARENT, other))
    first, second = yaml.safe_load((project.root / "extract/x.meltano.yml").read_text())["plugins"]["extractors"]
    assert (first["select"], second["select"]) == (["public-parent.*"], ["other-parent.*"])
    assert (second["name"], second["inherit_from"]) == ("tap-x_other", "tap-x")
    _, second = yaml.safe_load((project.root / "load/x.meltano.yml").read_text())["plugins"]["loaders"]
    assert second["config"] == {"default_target_schema": "raw_x_other"}
    sources = yaml.safe_load((project.root / "transform/models/staging/x/_sources.yml").read_text())["sources"]
    assert [each["name"] for each in sources] == ["raw_x", "raw_x_other"]
    model = (project.root / "transform/models/staging/x/stg_x_other__parent.sql").read_text()
    assert "source('raw_x_other', 'parent')" in model


def test_what_a_person_decided_is_proposed_again_without_being_asked(project):
    stamped = table("stamped", column("id", "bigint"), column("at", "timestamp with time zone"), column("email"))
    stamped = replace(stamped, question=Question("at", "is it set?"), masks=(MaskProposal("email", "sha256", "x"),))
    every = frozenset(each.table.stream for each in (PARENT, CHILD, stamped))
    fresh = replace(proposal(PARENT, CHILD, stamped), all_streams=every)
    decided = edit.confirm_masks(edit.answer(edit.leave_out(fresh, "child"), {"public-stamped"}, yes=True))
    write.write(project, earlier.with_left_out(decided, Manifest()))

    before = Manifest.read(project.root / "extract/x.onboarded.json")
    again = earlier.as_before(fresh, before)
    (found,) = [each for each in again.tables if each.table.stream == "public-stamped"]
    assert (found.method, found.replication_key, found.masks_confirmed) == (Method.incremental, "at", True)
    assert "public-child" not in {each.table.stream for each in again.tables}
    assert not write.write(project, earlier.with_left_out(again, before)).changes
    # a no, too, which the file of what is on board keeps for a person to see and delete
    refused = edit.answer(fresh, {"public-stamped"}, yes=False)
    write.write(project, earlier.with_left_out(refused, before))
    kept = Manifest.read(project.root / "extract/x.onboarded.json")
    assert kept.declined == {"public-stamped": "at"}
    assert edit.asked(earlier.as_before(fresh, kept)) == []
    assert not write.write(project, earlier.with_left_out(earlier.as_before(fresh, kept), kept)).changes
    assert edit.asked(earlier.as_before(fresh, kept, chosen={"public-stamped"}))
    # unless the command names it
    assert "public-child" in {
        each.table.stream for each in earlier.as_before(fresh, before, named={"public-child"}).read
    }
