"""The text of the files that onboarding writes: legal names, no comment taken for code, tests that can hold."""

from __future__ import annotations

import json
from dataclasses import replace

import jinja2
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from meltano.core.plugin.singer.catalog import MetadataExecutor, select_metadata_rules
from meltano.core.plugin.singer.tap import config_metadata_rules
from meltano.core.utils import expand_env_vars

from tests.onboarding import CHILD, PARENT, column, proposal, table
from tidemark.onboard import (
    dbt_tests,
    escaping,
    identifiers,
    marts,
    meltano_files,
    staging,
    warehouse_types,
)
from tidemark.onboard.meltano_files import MeltanoSource
from tidemark.onboard.proposal import MaskProposal, Method
from tidemark.onboard.staged_columns import StagedSource

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40)


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
    # Meltano takes a dot for a level, if it is not escaped
    mask = MaskProposal("the.title", "sha256", "its name")
    source = MeltanoSource.of("x")
    for confirmed in (False, True):
        one = replace(PARENT, masks=(mask,), masks_confirmed=confirmed)
        text = meltano_files.files(proposal(one), source)[source.tap_path]
        (plugin,) = yaml.safe_load(text)["plugins"]["extractors"]
        assert plugin["config"].get("masks") == ({"public-parent": {r"the\.title": "sha256"}} if confirmed else None)


def test_the_first_source_has_a_lock_file_and_a_further_one_has_a_parent():
    first, further = MeltanoSource.of("postgres"), MeltanoSource.of("x")
    for source, own in ((first, {"variant": "tidemark"}), (further, {"inherit_from": "tap-postgres"})):
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
