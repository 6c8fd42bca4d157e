from __future__ import annotations

import json

import pytest

from tidemark_airflow import schedules


def export(*tasks, interval="@daily", **more):
    return json.dumps(
        {"schedules": [{"name": "s", "interval": interval, "env": {}, "tasks": tasks}], "sources": [], **more}
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
