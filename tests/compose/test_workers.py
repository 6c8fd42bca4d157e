"""docker-compose.yml with workers that take tasks from a queue: `make compose-up WORKERS=2`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.airflow.server import until
from tests.compose.test_stack import DAG, WAITING, assert_right, changed, held, quiet, release

if TYPE_CHECKING:
    from tests.compose.stack import Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def stack(stack: Stack) -> Stack:
    with (stack.root / "orchestrate" / "airflow.env").open("a") as settings:
        settings.write(
            "\nTIDEMARK_DAG_RETRY_DELAY_SECONDS=5\n"
            # how soon a dead worker is noticed
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=20\n"
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL=3\n"
        )
    stack.make("compose-up", WORKERS=2)
    stack.airflow.log_in()
    return stack


def workers_of(stack: Stack, dag: str, run: str) -> set[str]:
    """Return the containers of a run's tasks."""
    found = stack.airflow.get(f"/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
    return {task["hostname"] for task in found if task["hostname"]}


def test_two_workers_share_the_tasks_and_one_takes_over_when_the_other_is_killed(stack):
    airflow = stack.airflow
    containers = {each["Config"]["Hostname"]: each["Id"] for each in stack.services()["airflow-worker"]}
    assert len(containers) == 2
    for dag in (DAG, "nightly-backup"):
        airflow.unpause(dag)
    airflow.run(DAG)
    quiet(stack)
    changed(stack)
    holder = held(stack, "raw.order_items")
    load = airflow.trigger(DAG)
    until(lambda: stack.warehouse(WAITING) != "0", "a worker loads")
    (busy,) = workers_of(stack, DAG, load)
    # that one is busy, so the other takes the next task
    backup = airflow.trigger("nightly-backup")
    other = until(lambda: workers_of(stack, "nightly-backup", backup), "the other worker takes the backup")
    assert {busy} | other == containers.keys()
    stack.ok("docker", "kill", containers[busy])
    release(stack, holder)
    assert airflow.wait(DAG, load) == "success", airflow.logs(DAG, load)
    assert airflow.tasks(DAG, load)["extract_load"] == ("success", 2)
    assert workers_of(stack, DAG, load) <= other
    assert airflow.wait("nightly-backup", backup) == "success", airflow.logs("nightly-backup", backup)
    assert_right(stack)
    # the broker requires its password
    ping = ["redis-cli", "--tls", "--cacert", "/run/secrets/ca.crt", "-h", "localhost", "ping"]
    assert stack.exec("redis", *ping).stdout.startswith("NOAUTH")
