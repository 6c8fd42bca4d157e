"""The first failure tells its cause: the last line of a run has the error itself, and what to do about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

LOAD = ("run", "tap-postgres", "target-postgres")
POOR = {"TAP_POSTGRES_USER": "poor", "TAP_POSTGRES_PASSWORD": "secret"}
POOR_DBT = {"DBT_POSTGRES_USER": "poor", "DBT_POSTGRES_PASSWORD": "secret"}
# a role that may read a table and not use its schema, which is what a GRANT on all tables alone gives
WITHOUT_USAGE = """
    create schema shut; create table shut.a (id int primary key); create table shut.b (id int primary key);
    create role poor login password 'secret'; grant select on all tables in schema shut to poor
"""


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A project with a loaded shop and no models."""
    for made in make_checkout(stage="loaded"):
        models = made.remove_models()
        (models / "sources.yml").write_text("sources: [{name: raw, tables: [{name: orders}]}]")
        with made.connect("source") as connection:
            connection.execute(WITHOUT_USAGE)
        with made.connect("warehouse") as connection:
            connection.execute("create role poor login password 'secret'; grant create on database warehouse to poor")
            connection.execute("grant select on all tables in schema raw to poor")
        yield made


@pytest.fixture
def model(project: Checkout) -> Iterator[None]:
    """A model that needs a key and has none."""
    path = project.root / "transform" / "models" / "mart_orders.sql"
    path.write_text("{{ config(materialized='in_place_incremental') }} select 1 as id")
    yield
    path.unlink()


@pytest.mark.usefixtures("model")
def test_a_model_that_fails_is_named_with_dbts_own_error(project):
    error = project.refusal("run", "dbt-postgres:run")
    assert re.match(
        r"error: mart_orders: \S+ needs a unique_key: .*\. What to do: docs/runbook.md#models_failed", error
    )


def test_a_schema_without_usage_is_named_with_the_role_and_the_grant_on_both_sides(project):
    select = {"TAP_POSTGRES__SELECT": '["shut-*.*"]', "TAP_POSTGRES_FILTER_SCHEMAS": '["shut"]'}
    error = project.refusal(*LOAD, env={**POOR, **select})
    grant = 'permission denied for schema {0}: as the schema\'s owner, GRANT USAGE ON SCHEMA "{0}" TO "poor"'
    # once for both streams, and nothing of others, which there are not
    assert f"error: 2 streams could not be read. shut-a, shut-b: {grant.format('shut')}" in error
    path = project.root / "transform" / "models" / "stg_orders.sql"
    path.write_text("{{ config(materialized='view') }} select * from {{ source('raw', 'orders') }}")
    error = project.refusal("run", "dbt-postgres:run", env=POOR_DBT)
    path.unlink()
    assert grant.format("raw") in error


def test_a_run_without_a_stream_fails_with_what_to_do(project):
    file = project.root / "extract" / "extractors.meltano.yml"
    before = file.read_text()
    file.write_text(before.partition("      select:")[0] + "      select: []\n")
    empty = project.refusal(*LOAD)
    file.write_text(before)
    assert "tap-postgres has nothing to read: no stream is selected; `tidemark onboard postgres` proposes" in empty
    assert "No stream is selected, so nothing is read" in project.refusal(
        *LOAD, env={"TAP_POSTGRES__SELECT": '["x*.*"]'}
    )


@pytest.mark.long
def test_freshness_without_a_rule_is_said_to_be_off(project):
    said = project.tidemark("run", "dbt-postgres:freshness")
    assert "Freshness is off for any source: no rule" in said
    found = project.tidemark("check")
    assert "dbt checks no freshness of raw.orders: give their source `freshness` and `loaded_at_query`" in found
    assert "dbt-postgres:test succeeded" in project.tidemark("run", "dbt-postgres:test")
