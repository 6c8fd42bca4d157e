"""The files of the demo shop's dbt package: names, descriptions, and the style of its models."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import yaml

from tests.conftest import REPOSITORY

MODELS = REPOSITORY / "demo" / "shop" / "models"
# doc blocks for every project
SHARED = REPOSITORY / "transform" / "packages" / "tidemark" / "models"


def test_every_model_is_described_beside_it():
    models = sorted(MODELS.rglob("*.sql"))
    assert models
    for model in models:
        (described,) = yaml.safe_load(model.with_suffix(".yml").read_text())["models"]
        assert described["name"] == model.stem
        assert described["description"].startswith("One row per ")


@pytest.mark.parametrize("path", sorted(MODELS.rglob("*.yml")), ids=lambda path: path.stem)
def test_every_model_and_column_is_described(path):
    content = yaml.safe_load(path.read_text())
    tables = [table for source in content.get("sources", []) for table in source["tables"]]
    for each in [*content.get("models", []), *tables, *content.get("exposures", [])]:
        assert each.get("description"), each["name"]
        for column in each.get("columns", []):
            assert column.get("description"), f"{each['name']}.{column['name']}"


def test_a_description_that_columns_share_is_written_once_as_a_doc_block():
    files = [*MODELS.rglob("*.yml"), *MODELS.parent.glob("snapshots/*.yml")]
    contents = [yaml.safe_load(path.read_text()) for path in files]
    tables = [
        each
        for content in contents
        for each in [
            *content.get("models", []),
            *content.get("snapshots", []),
            *(table for source in content.get("sources", []) for table in source["tables"]),
        ]
    ]
    # an alias in YAML is the same object as its anchor, and so is written once
    columns = {id(column): column["description"] for table in tables for column in table.get("columns", [])}
    texts = Counter(text for text in columns.values() if "doc(" not in text)
    # "Primary key." says what a column is for, and not what it holds
    assert {text for text, count in texts.items() if count > 1} <= {"Primary key."}
    used = {name for text in columns.values() for name in re.findall(r"doc\('(\w+)'\)", text)}
    blocks = [
        name
        for path in [*MODELS.rglob("*.md"), *SHARED.glob("*.md")]
        for name in re.findall(r"{% docs (\w+) %}", path.read_text())
    ]
    assert sorted(blocks) == sorted(used)


def test_every_mart_is_a_plain_select_without_a_branch_for_incremental_builds():
    # a calendar and a materialized view have no changes of inputs to go by
    whole = {"dim_dates", "mart_monthly_sales"}
    for path in [*MODELS.rglob("*.sql"), *MODELS.parent.glob("snapshots/*.sql")]:
        text = path.read_text()
        for macro in ("is_incremental", "horizon", "staged_keys", "moved_keys", "snapshot_goes_on", "version_xid"):
            assert macro not in text, f"{path.name}: {macro}"
        keyed = path.parent.name in {"marts", "snapshots"} and path.stem not in whole
        assert ("changed_by=" in text) is keyed, path.name


# contracts check this for the marts
@pytest.mark.parametrize("path", sorted(MODELS.glob("[si]*/*.sql")), ids=lambda path: path.stem)
def test_every_column_of_a_view_is_in_its_yaml(path):
    (model,) = yaml.safe_load(path.with_suffix(".yml").read_text())["models"]
    select = path.read_text().rpartition("\n    select\n")[2].partition("\n    from ")[0]
    columns = re.findall(r"(?:\bas |^        (?:\w+\.)?)(?!case$)(\w+),?$", select, re.MULTILINE)
    assert columns
    assert sorted(column["name"] for column in model["columns"]) == sorted(columns)


@pytest.mark.parametrize("path", sorted(MODELS.rglob("*.yml")), ids=lambda path: path.stem)
def test_no_unit_test_needs_a_table_that_is_built_after_it(path):
    for test in yaml.safe_load(path.read_text()).get("unit_tests", []):
        for given in test["given"]:
            # otherwise dbt needs the table to look up its columns
            assert given["input"] != "this" or given["format"] == "sql", test["name"]
