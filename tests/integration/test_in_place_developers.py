"""What developers do beside production: runs without rows, and copies of models in schemas of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.marts import assert_as_a_full_build_has_them, keys, load
from tests.integration.stages import make_checkout
from tests.integration.test_in_place import LOGGED, edited

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


@pytest.mark.long
def test_an_empty_run_is_refused_and_never_counts_as_a_good_run(project, tmp_path):
    noted = "select model, horizon::text from marts._tidemark_models order by 1"
    good = project.root / ".meltano" / "dbt" / "good" / "manifest.json"
    before = project.rows("warehouse", noted)
    done = project.dbt("build", "--empty", "--full-refresh")
    assert done.returncode
    assert "--empty and --sample would leave in-place tables without most of their rows" in " ".join(
        done.stdout.split()
    )
    assert project.rows("warehouse", noted) == before
    # a developer may try models without rows; the next build has all of them
    own = {"DBT_SCHEMA_PREFIX": "eva_"}
    empty = project.dbt("build", "--empty", "--select", "+fct_orders", "--resource-type", "model", env=own)
    assert empty.returncode == 0, empty.stdout
    assert project.rows("warehouse", "select count(*) from eva_marts.fct_orders") == [(0,)]
    project.build("--select", "+fct_orders", env=own)
    assert project.rows("warehouse", "table eva_marts.fct_orders except table marts.fct_orders") == []
    assert project.rows("warehouse", "select count(*) from eva_marts.fct_orders") == project.rows(
        "warehouse", "select count(*) from marts.fct_orders"
    )
    # without in-place tables, an empty run is not a good run either
    (tmp_path / "dbt_project.yml").write_text("{name: plain, profile: tidemark, model-paths: [models]}")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "one.sql").write_text("select 1 as one")
    elsewhere = {
        "DBT_PROJECT_DIR": str(tmp_path),
        "DBT_TARGET_PATH": str(tmp_path / "target"),
        "DBT_GOOD_RUN_PATH": str(tmp_path / "good"),
    }
    assert project.dbt("run", "--empty", env=elsewhere).returncode == 0
    assert not (tmp_path / "good").exists()
    assert project.dbt("run", env=elsewhere).returncode == 0
    assert (tmp_path / "good" / "manifest.json").exists()
    assert good.exists()


@pytest.mark.long
def test_a_developer_builds_changed_models_in_separate_schemas(project):
    own = {"DBT_SCHEMA_PREFIX": "ana_"}
    good = project.root / ".meltano" / "dbt" / "good"
    with edited(project, "models/marts/dim_products.sql", ("sku,\n", "upper(sku) as sku,\n")):
        changed = ("build", "--select", "state:modified+", "--defer", "--state", str(good), "--resource-type", "model")
        done = project.dbt(*changed, env=own)
        assert done.returncode == 0, done.stdout
    found = project.rows(
        "warehouse",
        "select relname from pg_class where relnamespace = 'ana_marts'::regnamespace and relkind in ('r', 'p', 'm') "
        "and not relispartition",
    )
    above = {"dim_products", "fct_sales", "fct_orders"}
    above |= {"mart_customer_lifetime", "mart_daily_sales", "mart_monthly_sales"}
    assert {name for (name,) in found if not name.startswith("_")} == above
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_developers_model_is_built_by_the_changes_of_production_and_does_not_hold_their_log(project):
    own = {"DBT_SCHEMA_PREFIX": "ben_"}
    project.build()
    deferred = ("--select", "mart_customer_lifetime", "--defer", "--state", str(project.root / ".meltano/dbt/good"))
    differing = (
        "select count(*) from (table {0}marts.mart_customer_lifetime except table marts.mart_customer_lifetime) d"
    )

    def developers() -> str:
        return project.build(*deferred, "--favor-state", env=own)

    def change() -> None:
        with project.connect("warehouse") as connection:
            connection.execute(load("order_items", "quantity = quantity + 1", "order_id between 80 and 82"))
        project.build()

    developers()
    assert keys(developers())["mart_customer_lifetime"] == 0
    # by the log of production's fct_orders, which the project's own models have read
    change()
    assert 0 < keys(developers())["mart_customer_lifetime"] <= 3
    assert project.rows("warehouse", differing.format("ben_")) == [(0,)]
    # a log that the developer's model has not read is deleted all the same
    change()
    # models that were built before it was written read it in the next build, and the one after that deletes it
    project.build()
    project.build()
    assert project.rows("warehouse", LOGGED.format("marts")) == [(0,)]
    printed = developers()
    assert "mart_customer_lifetime" not in keys(printed)
    assert "changes does not reach back to the last build" in " ".join(printed.split())
    assert project.rows("warehouse", differing.format("ben_")) == [(0,)]
