from __future__ import annotations

import json

import pytest

from tidemark_airflow import schedules


def export(*tasks, interval="@daily", **more):
    return json.dumps(
        {"sources": [], **more, "schedules": [{"name": "s", "interval": interval, "env": {}, "tasks": tasks}]}
    )


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("tap-postgres target-postgres", "extract_load"),
        ("tap-crm target-crm", "extract_load_crm"),
        ("dbt-postgres:run", "dbt_run"),
        ("dbt-postgres:test dbt-postgres:freshness", "dbt_test"),
        ("tidemark:reconcile", "reconcile"),
        ("tidemark:backup", "backup"),
    ],
)
def test_a_task_is_named_after_what_it_does(task, name):
    (schedule,) = schedules.parse(export(task)).schedules
    assert [step.name for step in schedule.steps] == [name]


def test_two_tasks_that_do_the_same_have_different_names():
    (schedule,) = schedules.parse(export("dbt-postgres:run", "dbt-postgres:run")).schedules
    assert [step.name for step in schedule.steps] == ["dbt_run", "dbt_run_2"]


@pytest.mark.parametrize("interval", ["@manual", "@none", None])
def test_a_schedule_that_is_started_by_hand_has_no_interval(interval):
    assert schedules.parse(export("tidemark:reconcile", interval=interval)).schedules[0].interval is None


def test_a_tasks_blocks_say_what_it_does():
    found = schedules.parse(export("tap-a target-a", "dbt-postgres:build", "dbt-postgres:test", "tidemark:reconcile"))
    load, build, test, reconcile = found.schedules[0].steps
    assert (load.loads, load.reads_source, load.tests) == (True, True, False)
    assert (build.loads, build.reads_source, build.tests) == (False, False, False)
    assert (test.loads, test.reads_source, test.tests) == (False, False, True)
    assert (reconcile.reads_source, reconcile.loads) == (True, False)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"schedules": 1}', '{"schedules": [{}], "sources": []}', export("")],
    ids=["empty", "nothing in it", "a list", "a number", "a schedule of nothing", "a task of nothing"],
)
def test_a_file_of_another_format_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^The output of `tidemark schedules` can't be read .*\.$"):
        schedules.parse(text)


def test_two_schedules_with_one_name_are_refused():
    one = json.loads(export("tidemark:reconcile"))
    one["schedules"] *= 2
    with pytest.raises(ValueError, match="The schedule s is there twice"):
        schedules.parse(json.dumps(one))


def test_sources_that_are_in_use_are_compared_by_a_task_each():
    def source(name, *streams, **more):
        return {"name": name, "tap": f"tap-{name}", "schema": f"raw_{name}", "shown": list(streams), **more}

    listed = [
        source("postgres"),
        source("crm", "crm/public-contacts"),
        source("erp", "erp/public-orders"),
        source("old", "old/public-orders", retired="2026-01-01"),
    ]
    found = schedules.parse(export("tidemark:reconcile", sources=listed)).schedules[0]
    assert [step.name for step in found.steps] == ["reconcile_crm", "reconcile_erp"]
    # without a list of streams, a source may still select all of its tables
    loaded = export("tap-postgres target-postgres", "tidemark:reconcile", sources=listed[:2])
    names = [step.name for step in schedules.parse(loaded).schedules[0].steps]
    assert names == ["extract_load", "reconcile_crm", "reconcile_postgres"]
    alone = schedules.parse(export("tidemark:reconcile", sources=listed[:1])).schedules[0]
    assert [(step.name, step.options) for step in alone.steps] == [("reconcile", ())]
