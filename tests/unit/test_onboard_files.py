"""The files that onboarding writes: legal names, text that is not taken for code, and what a person edited is kept."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import jinja2
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from meltano.core.plugin.singer.catalog import MetadataExecutor, select_metadata_rules
from meltano.core.plugin.singer.tap import config_metadata_rules
from meltano.core.utils import expand_env_vars

from tidemark.errors import TidemarkError, UsageError
from tidemark.onboard import (
    dbt_tests,
    escaping,
    identifiers,
    marts,
    meltano_files,
    staging,
    warehouse_types,
    write,
)
from tidemark.onboard.generated import Options
from tidemark.onboard.manifest import Manifest
from tidemark.onboard.meltano_files import MeltanoSource
from tidemark.onboard.proposal import MaskProposal, Method, Proposal, TableProposal
from tidemark.onboard.source_tables import ForeignKey, SourceColumn, SourceTable, ValueList
from tidemark.onboard.staged_columns import StagedSource
from tidemark.onboard.write import Status
from tidemark.project.directory import Project

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40)


def column(name: str, type_: str = "text", **more) -> SourceColumn:
    return SourceColumn(name, type_, more.pop("base_type", type_), **more)


def table(name: str, *columns: SourceColumn, schema: str = "public", key: tuple[str, ...] = ("id",), **more):
    found = SourceTable(schema, name, "r", columns, key=key, has_primary_key=bool(key), **more)
    return TableProposal(found, Method.full_table, "small", raw_name=name, model=f"stg_x__{identifiers.legal(name)}")


def proposal(*tables: TableProposal) -> Proposal:
    return Proposal("x", "raw_x", tables)


PARENT = table("parent", column("id", "bigint"), column("title"), rows=5)
CHILD = table(
    "child",
    column("id", "bigint"),
    column("parent_id", "bigint"),
    column("state"),
    rows=9,
    foreign_keys=(ForeignKey("child_parent", ("parent_id",), "public", "parent", ("id",)),),
    value_lists=(ValueList("state", ("new", "won't", "{{ x }}")),),
)


# names


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("userName", "user_name"),
        ("HTTPServerID", "http_server_id"),
        ("Naïve Größe", "naive_grosse"),
        ("2nd", "_2nd"),
        ("名前", "column_1"),
        ("deleted_at", "source_deleted_at"),
        ("order", "order"),
        ("A" * 63, "a" * 63),
    ],
)
def test_a_column_gets_a_plain_alias(name, alias):
    assert identifiers.unique([name], taken=identifiers.ADDED) == {name: alias}


@settings(deadline=None)
@given(st.lists(NAMES, unique=True, max_size=20))
def test_aliases_are_legal_and_apart_and_stay_when_columns_are_added(found):
    aliases = identifiers.unique(found, taken=identifiers.ADDED)
    assert len(set(aliases.values())) == len(found)
    for alias in aliases.values():
        assert len(alias) <= identifiers.MAX_BYTES
        assert alias.isascii()
        assert alias.replace("_", "a").isalnum()
        assert not alias[0].isdigit()
    again = identifiers.unique(["new one", *reversed(found)], taken=identifiers.ADDED, before=aliases)
    assert {name: again[name] for name in found} == aliases


def test_the_column_that_has_a_plain_name_keeps_it_and_others_are_numbered():
    assert identifiers.unique(["userName", "UserName", "user_name"]) == {
        "userName": "user_name_2",
        "UserName": "user_name_3",
        "user_name": "user_name",
    }


# text


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))), st.booleans())
def test_a_comment_reaches_dbt_as_it_was_written(comment, alone):
    text = escaping.yaml_text(escaping.jinja(comment), inside=8, before=0 if alone else 13)
    read = yaml.safe_load(f"        description: {text}\n")["description"]
    # Jinja has one form of line break
    assert jinja2.Template(read.replace("\r", ""), keep_trailing_newline=True).render() == comment.replace("\r", "")
    assert alone or all(len(line) <= 130 or " " not in line.strip() for line in text.splitlines())


@settings(deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), st.data())
def test_a_pattern_selects_its_stream_and_column_alone(found, data):
    """By Meltano's own rules, after it has replaced variables."""
    stream, *others = [f"s-{name}" for name in found]
    own = data.draw(st.sampled_from(found))
    select = [f"{meltano_files.stream_pattern(stream)}.*"]
    select += [f"!{meltano_files.stream_pattern(stream)}.{meltano_files.stream_pattern(own)}"]
    metadata = {meltano_files.stream_pattern(stream): {"replication-method": "INCREMENTAL"}}
    env = dict.fromkeys(["A", "HOME", "Z"], "other")
    rules = [
        *select_metadata_rules(["!*.*"]),
        *select_metadata_rules(expand_env_vars(select, env)),
        *config_metadata_rules(json.loads(expand_env_vars(meltano_files._json(metadata), env))),
    ]
    catalog = {
        "streams": [
            {
                "tap_stream_id": each,
                "metadata": [{"breadcrumb": [], "metadata": {}}]
                + [{"breadcrumb": ["properties", name], "metadata": {}} for name in found],
            }
            for each in (stream, *others)
        ]
    }
    MetadataExecutor(rules).visit(catalog)
    for entry in catalog["streams"]:
        root, *columns = (each["metadata"] for each in entry["metadata"])
        is_ours = entry["tap_stream_id"] == stream
        assert root == ({"selected": True, "replication-method": "INCREMENTAL"} if is_ours else {"selected": False})
        assert [each["selected"] for each in columns] == [is_ours and name != own for name in found]


# tap and target


def test_a_confirmed_mask_is_written_and_a_proposed_one_is_not():
    mask = MaskProposal("title", "sha256", "its name")
    source = MeltanoSource.of("x")
    for confirmed in (False, True):
        one = replace(PARENT, masks=(mask,), masks_confirmed=confirmed)
        text = meltano_files.files(proposal(one), source)[source.tap_path]
        (plugin,) = yaml.safe_load(text)["plugins"]["extractors"]
        assert plugin["config"].get("masks") == ({"public-parent": {"title": "sha256"}} if confirmed else None)


def test_the_first_source_has_a_lock_file_and_a_further_one_has_a_parent():
    first = MeltanoSource("tap-postgres", "target-postgres", "extract/a.meltano.yml", "load/a.meltano.yml", None, None)
    for source, own in ((first, {"variant": "tidemark"}), (MeltanoSource.of("x"), {"inherit_from": "tap-postgres"})):
        found = meltano_files.files(proposal(PARENT), source)
        (plugin,) = yaml.safe_load(found[source.tap_path])["plugins"]["extractors"]
        assert own.items() <= plugin.items()
        assert plugin["name"] == source.tap
        (plugin,) = yaml.safe_load(found[source.target_path])["plugins"]["loaders"]
        assert plugin["config"] == {"default_target_schema": "raw_x"}


def test_a_source_without_a_table_to_read_reads_nothing_of_its_parent():
    text = meltano_files.files(proposal(replace(PARENT, method=Method.left_out)), MeltanoSource.of("x"))
    (plugin,) = yaml.safe_load(text["extract/x.meltano.yml"])["plugins"]["extractors"]
    assert plugin["select"] == ["!*.*"]
    assert plugin["metadata"] == "{}"


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


# types


@pytest.mark.parametrize(
    ("found", "landed", "in_mart"),
    [
        (column("a", "public.mood", kind="e", enum_labels=("x",)), "text", "text"),
        (column("a", "public.positive", base_type="integer", kind="d"), "integer", "integer"),
        (column("a", "public.feeling", base_type="public.mood", kind="d", enum_labels=("x",)), "text", "text"),
        (column("a", "public.point3", kind="c"), "text", "text"),
        (column("a", "public.citext"), None, "text"),
        (column("a", "public.mood[]"), None, "text"),
        (column("a", "numeric(12,2)[]"), "numeric(12,2)[]", "numeric(12,2)[]"),
        (column("a", "timestamp(3) with time zone"), *["timestamp(3) with time zone"] * 2),
        (column("a", "json"), "json", None),
        (column("a", "xml"), None, None),
        (column("a", "public.geometry(Point,4326)"), None, None),
    ],
    ids=lambda value: getattr(value, "type", value),
)
def test_a_marts_type_is_the_warehouses_or_a_cast_where_only_the_warehouse_can_tell(found, landed, in_mart):
    assert (warehouse_types.landed(found), warehouse_types.in_mart(found)) == (landed, in_mart)


# models


def test_a_staging_model_reads_like_one_that_a_person_wrote():
    own = table("User", column("ID", "bigint"), column("select"), column("loaded_at", "date"), key=("ID",))
    (staged,) = StagedSource.of(proposal(own)).tables.values()
    assert (
        staging.model(staged)
        == """\
with source as (

    select * from {{ source('raw_x', 'user') }}

),

renamed as (

    select
        -- ids
        "ID" as id,

        -- text
        "select",

        -- booleans
        _sdc_deleted_at is not null as is_deleted,

        -- dates
        loaded_at as source_loaded_at,

        -- timestamps
        _sdc_deleted_at as deleted_at,
        _sdc_extracted_at as extracted_at,
        _sdc_batched_at as loaded_at,

        -- the transaction that loaded the row; models find changed rows by it
        _tidemark_loaded_xid as loaded_xid

    from source

)

select * from renamed
"""
    )


def test_a_fact_and_a_dimension_are_drafted_from_the_foreign_keys_and_stay_the_same_ones():
    other = replace(PARENT, table=replace(PARENT.table, name="zebra", rows=99), raw_name="zebra", model="stg_x__zebra")
    source = StagedSource.of(proposal(PARENT, CHILD, other))
    star = marts.find(source)
    assert star
    assert star.streams == ("public-child", "public-parent")
    files = marts.files(star)
    assert set(files) == {f"{name}.{kind}" for name in ("dim_x__parent", "fct_x__child") for kind in ("sql", "yml")}
    assert all("enabled=false" in text for name, text in files.items() if name.endswith("sql"))
    assert "{'model': 'dim_x__parent', 'key': {'parent_id': 'id'}, 'columns': ['title']}" in files["fct_x__child.sql"]
    assert "left join members on facts.parent_id = members.id" in files["fct_x__child.sql"]
    bigger = replace(CHILD, table=replace(CHILD.table, name="zoo", rows=1e9), raw_name="zoo", model="stg_x__zoo")
    again = marts.find(StagedSource.of(proposal(PARENT, CHILD, bigger)), before=star.streams)
    assert again
    assert again.streams == star.streams
    assert marts.find(StagedSource.of(proposal(PARENT))) is None


# data tests


def test_keys_are_errors_and_what_the_source_may_change_at_any_moment_is_a_warning():
    chosen = dbt_tests.choose(StagedSource.of(proposal(PARENT, CHILD)))
    assert [(each.model, each.name, each.warns) for each in chosen.tests] == [
        ("stg_x__parent", "unique", False),
        ("stg_x__parent", "not_null", False),
        ("stg_x__child", "unique", False),
        ("stg_x__child", "not_null", False),
        ("stg_x__child", "foreign_key", True),
        ("stg_x__child", "accepted_values", True),
    ]


def test_the_number_of_tests_is_bounded_and_what_is_left_out_is_said():
    chosen = dbt_tests.choose(StagedSource.of(proposal(PARENT, CHILD)), most=4)
    assert len(chosen.tests) == 4
    assert chosen.left_out == (
        "1 tests of foreign keys are left out, as there may be 4",
        "1 tests of lists of values are left out, as there may be 4",
    )


@pytest.mark.parametrize(
    ("parent", "child", "why"),
    [
        (replace(PARENT, method=Method.left_out), CHILD, "public.parent is not read"),
        (replace(PARENT, left_out_columns={"id": "heavy"}), CHILD, "a column of it is not read"),
        (
            replace(PARENT, masks=(MaskProposal("id", "sha256", "its name"),), masks_confirmed=True),
            CHILD,
            "its columns are not masked alike",
        ),
    ],
    ids=["parent", "column", "mask"],
)
def test_a_foreign_key_that_can_not_hold_in_the_warehouse_is_not_tested_and_said(parent, child, why):
    chosen = dbt_tests.choose(StagedSource.of(proposal(parent, child)))
    assert "foreign_key" not in {each.name for each in chosen.tests}
    assert chosen.left_out == (f"public.child, foreign key child_parent: {why}",)


# writing


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
    path = project.root / "extract/x.meltano.yml"
    path.parent.mkdir()
    path.write_text("plugins: {}\n")
    written = write.write(project, proposal(PARENT, CHILD))
    (foreign,) = written.with_status(Status.foreign)
    assert foreign.path == "extract/x.meltano.yml"
    assert path.read_text() == "plugins: {}\n"


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
