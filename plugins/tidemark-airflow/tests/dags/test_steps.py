"""Which tasks a DAG has, and what each follows."""

from __future__ import annotations

import pytest

from tidemark_airflow import steps

SOURCES = {"tap-postgres": "postgres", "tap-crm": "crm", "tap-erp": "erp"}
LOADS = ("tap-postgres target-postgres", "tap-crm target-crm")
DBT = ("dbt-postgres:run", "dbt-postgres:test dbt-postgres:freshness")


def follows(*tasks, together=(), compared=()):
    """Return what each task follows."""
    planned = steps.plan([tuple(task.split()) for task in tasks], SOURCES, list(map(frozenset, together)), compared)
    assert len({step.name for step in planned}) == len(planned)
    return {step.name: set(step.after) for step in planned}


def test_one_source_is_loaded_then_all_is_built_then_all_is_tested():
    assert follows(LOADS[0], *DBT) == {"extract_load": set(), "dbt_run": {"extract_load"}, "dbt_test": {"dbt_run"}}


def test_models_of_a_source_follow_its_load_alone_and_those_of_both_follow_the_models_of_each():
    assert follows(*LOADS, *DBT) == {
        "extract_load_postgres": set(),
        "extract_load_crm": set(),
        "dbt_run_crm": {"extract_load_crm"},
        "dbt_run_postgres": {"extract_load_postgres"},
        "dbt_run_crm_and_postgres": {"dbt_run_crm", "dbt_run_postgres"},
        "dbt_test_crm": {"dbt_run_crm"},
        "dbt_test_postgres": {"dbt_run_postgres"},
        "dbt_test_crm_and_postgres": {"dbt_run_crm_and_postgres"},
    }


def test_of_three_sources_two_that_models_join_have_a_task_and_so_do_all():
    found = follows(*LOADS, "tap-erp target-erp", "dbt-postgres:build", together=[("crm", "erp")])
    assert {name for name in found if name.startswith("dbt")} == {
        "dbt_build_crm",
        "dbt_build_erp",
        "dbt_build_postgres",
        "dbt_build_crm_and_erp",
        "dbt_build_crm_and_erp_and_postgres",
    }
    assert found["dbt_build_crm_and_erp"] == {"dbt_build_crm", "dbt_build_erp"}
    assert found["dbt_build_crm_and_erp_and_postgres"] == {"dbt_build_postgres", "dbt_build_crm_and_erp"}


@pytest.mark.parametrize(
    ("tasks", "last"),
    [
        ((*LOADS, "tidemark:reconcile"), {"extract_load_postgres", "extract_load_crm"}),
        ((*LOADS, "dbt-postgres:docs"), {"extract_load_postgres", "extract_load_crm"}),
        ((*LOADS, DBT[0], "tidemark:backup"), {"dbt_run_crm", "dbt_run_postgres", "dbt_run_crm_and_postgres"}),
        ((" ".join(LOADS), DBT[0]), {"extract_load"}),
        (("tap-github target-github", LOADS[1], DBT[0]), {"extract_load_github", "extract_load_crm"}),
    ],
    ids=["a comparison", "another command of dbt's", "a backup", "two loads in one task", "a tap of another kind"],
)
def test_what_is_of_no_single_source_follows_everything_before_it(tasks, last):
    assert list(follows(*tasks).values())[-1] == last


def test_each_of_several_sources_is_compared_by_a_task_of_its_own_that_follows_nothing_of_another():
    assert follows("tidemark:reconcile", compared=["crm"]) == {"reconcile": set()}
    assert follows("tidemark:reconcile", compared=SOURCES.values()) == {
        "reconcile_crm": set(),
        "reconcile_erp": set(),
        "reconcile_postgres": set(),
    }
    # erp is loaded by another job, so its comparison follows no load of this one
    assert follows(*LOADS, "tidemark:reconcile", DBT[0], compared=SOURCES.values()) == {
        "extract_load_postgres": set(),
        "extract_load_crm": set(),
        "reconcile_crm": {"extract_load_crm"},
        "reconcile_erp": set(),
        "reconcile_postgres": {"extract_load_postgres"},
        "dbt_run_crm": {"reconcile_crm"},
        "dbt_run_erp": {"reconcile_erp"},
        "dbt_run_postgres": {"reconcile_postgres"},
        "dbt_run_crm_and_erp_and_postgres": {"dbt_run_crm", "dbt_run_erp", "dbt_run_postgres"},
    }
    after_models = follows(*LOADS, DBT[0], "tidemark:reconcile", "tidemark:backup", compared=["crm", "postgres"])
    assert after_models["reconcile_crm"] == {"dbt_run_crm"}
    assert after_models["backup"] == {"reconcile_crm", "reconcile_postgres"}


def test_a_comparison_of_a_source_waits_in_the_pool_of_that_source_and_names_it():
    one, other = steps.plan([("tidemark:reconcile",)], SOURCES, compared=["crm", "postgres"])
    assert (one.source, one.options, one.reads_source) == ("crm", ("--source=crm",), True)
    assert (other.source, other.options) == ("postgres", ("--source=postgres",))


def test_models_of_a_source_also_follow_another_taps_load():
    found = follows("tap-github target-github", *LOADS, DBT[0])
    assert found["dbt_run_crm"] == {"extract_load_crm", "extract_load_github"}


def test_a_job_that_loads_and_builds_twice_has_a_name_for_each_task():
    found = follows(*LOADS, *DBT, *LOADS, *DBT)
    assert found["extract_load_crm_2"] == {"dbt_test_crm", "dbt_test_postgres", "dbt_test_crm_and_postgres"}
    assert found["dbt_run_crm_2"] == {"extract_load_crm_2"}


def test_names_stay_short_enough_for_airflow():
    taps = {f"tap-{'x' * 30}{n}": f"{'x' * 30}{n}" for n in range(12)}
    planned = steps.plan([*((tap, tap.replace("tap", "target")) for tap in taps), ("dbt-postgres:run",)], taps)
    assert planned[-1].name == "dbt_run_12_sources_13"
    assert max(len(step.name) for step in planned) < 250


def test_a_load_with_a_mapper_is_not_shared():
    pair, mapped = (("tap-crm", "target-crm"), ("tap-crm", "map", "target-crm"))
    assert [step.shards for step in steps.plan([pair, mapped], SOURCES, shards=3)] == [3, 1]


def test_a_look_at_the_slots_waits_for_no_run_that_reads_the_source():
    (step,) = steps.plan([("tidemark:slots",)], {})
    assert (step.name, step.reads_source, step.is_apart) == ("slots", False, True)
    (step,) = steps.plan([("tidemark:slots", "tidemark:check")], {})
    assert (step.reads_source, step.is_apart) == (True, False)
