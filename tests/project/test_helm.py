"""The values for Airflow's Helm chart match the project, and the schema that AIRFLOW_CHART_SCHEMA names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from dotenv import dotenv_values
from jsonschema.validators import validator_for

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES = yaml.safe_load((REPOSITORY / "deploy" / "helm" / "values.yaml").read_text())
README = (REPOSITORY / "deploy" / "helm" / "README.md").read_text()
AIRFLOW_README = (REPOSITORY / "plugins" / "tidemark-airflow" / "README.md").read_text()
AIRFLOW_ENV = dotenv_values(REPOSITORY / "orchestrate" / "airflow.env")
PYTHON = REPOSITORY / ".meltano" / "utilities" / "airflow" / "venv" / "bin" / "python"
SCHEMA = os.environ.get("AIRFLOW_CHART_SCHEMA")
COMPONENTS = ("workers", "apiServer", "scheduler", "dagProcessor", "triggerer", "migrateDatabaseJob")

# only Airflow itself knows these: its options, the environment that tidemark-airflow composes, a task's time limit
ASK = """
import json, sys
from pathlib import Path
from airflow.configuration import conf
from tidemark_airflow import environment
from tidemark_airflow.settings import DagSettings
print(json.dumps({
    "options": [f"AIRFLOW__{section}__{option}".upper()
                for section, about in conf.configuration_description.items() for option in about["options"]],
    "composed": environment.compose(Path(sys.argv[1]), json.loads(sys.argv[2])),
    "task_s": DagSettings().task_timeout_minutes * 60,
}))
"""


def of(component: str) -> dict[str, Any]:
    """Return a component's values; the chart has those of Celery workers below `workers`."""
    values: dict[str, Any] = VALUES[component]
    return values["celery"] if component == "workers" else values


def variables() -> list[dict[str, Any]]:
    """Return all environment variables of containers, including templated ones."""
    own = chain.from_iterable(of(name).get("env", ()) for name in COMPONENTS)
    return [*VALUES["env"], *yaml.safe_load(VALUES["extraEnv"]), *own]


def settings() -> set[str]:
    """Return the settings in airflow.cfg, as variables."""
    return {f"AIRFLOW__{section}__{option}".upper() for section, own in VALUES["config"].items() for option in own}


def leaves(values: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from leaves(value, *path, str(key))
    else:
        yield path, values


@pytest.fixture(scope="module")
def airflow(tmp_path_factory) -> dict[str, Any]:
    # without .env, as in an image
    root = tmp_path_factory.mktemp("project")
    (root / "orchestrate").mkdir()
    shutil.copy(REPOSITORY / "orchestrate" / "airflow.env", root / "orchestrate")
    given = {variable["name"]: variable["value"] for variable in variables() if "value" in variable}
    done = subprocess.run(
        [PYTHON, "-c", ASK, root, json.dumps({**given, "AIRFLOW_HOME": "/opt/airflow"})],
        env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(root), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_keda_scales_workers_up_to_the_number_of_parallel_tasks(airflow):
    assert VALUES["executor"] == airflow["composed"]["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    keda = of("workers")["keda"]
    assert keda["enabled"] is True
    tasks = keda["maxReplicaCount"] * VALUES["config"]["celery"]["worker_concurrency"]
    assert tasks == int(airflow["composed"]["AIRFLOW__CORE__PARALLELISM"])


def test_a_surplus_worker_may_finish_the_longest_task(airflow):
    assert of("workers")["terminationGracePeriodSeconds"] >= airflow["task_s"] + 60


def test_every_setting_is_one_that_airflow_has(airflow):
    named = {variable["name"] for variable in variables() if variable["name"].startswith("AIRFLOW__")} | settings()
    assert named <= set(airflow["options"])
    pins = (REPOSITORY / "plugins" / "requirements" / "airflow.txt").read_text()
    assert f"apache-airflow=={VALUES['airflowVersion']} " in pins


def test_every_setting_takes_effect_where_it_is_written(airflow):
    # the environment overrides airflow.cfg, and tidemark-airflow adds orchestrate/airflow.env to it
    assert not settings() & set(airflow["composed"])
    past_one_machine = AIRFLOW_README.partition("## Past one machine")[2].partition("\n## ")[0]
    for variable in variables():
        name = variable["name"]
        if name in AIRFLOW_ENV and AIRFLOW_ENV[name] != variable["value"]:
            assert name in past_one_machine, name
    assert airflow["composed"]["AIRFLOW__API__HOST"] == "0.0.0.0"  # noqa: S104 - of a container
    assert "-api-server:" in airflow["composed"]["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert airflow["composed"]["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] == "/opt/airflow/logs"
    hosts = [host["name"] for host in VALUES["ingress"]["apiServer"]["hosts"]]
    assert [airflow["composed"]["AIRFLOW__API__BASE_URL"]] == [f"https://{host}" for host in hosts]


def test_every_variable_is_documented_by_the_project():
    told = (REPOSITORY / ".env.example").read_text() + AIRFLOW_README + " ".join(AIRFLOW_ENV)
    for variable in variables():
        assert re.search(rf"\b{variable['name']}\b", told), variable["name"]


def test_secrets_are_only_referenced_by_name():
    for variable in variables():
        if re.search(r"PASSWORD|SECRET|_KEY$|_URI$|_CONN|BROKER_URL|WEBHOOK_URL", variable["name"]):
            assert set(variable) == {"name", "valueFrom"}, variable["name"]
    inline = r"(?i)(password|pass|fernetkey|secretkey|jwtsecret|brokerurl|sshkey|connection|content)"
    for path, value in leaves(VALUES):
        assert not any(re.fullmatch(inline, key) for key in path), path
        assert not re.search(r"://[^/\s]*@", str(value)), path


def test_the_readme_names_every_required_secret_and_key():
    references = [variable["valueFrom"]["secretKeyRef"] for variable in variables() if "valueFrom" in variable]
    names = {value for path, value in leaves(VALUES) if re.search(r"secretName$", path[-1], re.IGNORECASE)}
    keys = {"connection", "fernet-key", "api-secret-key", "jwt-secret"}
    for name in names | keys | {word for reference in references for word in reference.values()}:
        assert f"`{name}`" in README, name


def test_containers_write_only_to_their_volumes_and_run_unprivileged():
    assert VALUES["securityContexts"]["pod"]["runAsNonRoot"] is True
    assert VALUES["securityContexts"]["containers"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    empty = {volume["name"] for volume in VALUES["volumes"] if "emptyDir" in volume}
    mounts = {mount["mountPath"]: mount["name"] for mount in VALUES["volumeMounts"]}
    (work,) = (variable["value"] for variable in VALUES["env"] if variable["name"] == "TIDEMARK_WORK_DIR")
    assert {mounts[path] for path in (work, "/tmp", "/opt/airflow")} == empty  # noqa: S108 - of a container
    for name in COMPONENTS:
        assert {"requests", "limits"} <= set(of(name)["resources"]), name
        assert of(name)["serviceAccount"] == {"automountServiceAccountToken": False}, name


@pytest.mark.skipif(SCHEMA is None, reason="needs AIRFLOW_CHART_SCHEMA: the path of a chart's values.schema.json")
def test_the_chart_accepts_the_values():
    schema = json.loads(Path(SCHEMA or "").read_text())
    refused = validator_for(schema)(schema).iter_errors(VALUES)
    assert [f"{error.json_path}: {error.message}" for error in refused] == []


MONITORING, LOGS = (
    list(yaml.safe_load_all((REPOSITORY / "deploy" / "helm" / name).read_text()))
    for name in ("monitoring.yaml", "logs.yaml")
)


@pytest.mark.parametrize("deployment", [MONITORING[0], LOGS[0]], ids=lambda each: each["metadata"]["name"])
def test_the_exporter_and_the_shipper_run_in_the_same_image_with_the_same_limits_as_airflow(deployment):
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    image = VALUES["images"]["airflow"]
    assert container["image"] == f"{image['repository']}:{image['tag']}"
    assert pod["securityContext"] == VALUES["securityContexts"]["pod"]
    assert container["securityContext"] == VALUES["securityContexts"]["containers"]
    assert {"requests", "limits"} <= set(container["resources"])
    common = {variable["name"]: variable.get("value") for variable in VALUES["env"]}
    for variable in container["env"]:
        assert re.search(rf"\b{variable['name']}\b", (REPOSITORY / ".env.example").read_text()), variable["name"]
        if variable["name"] in common:
            assert variable["value"] == common[variable["name"]]
        if "valueFrom" in variable:
            for word in variable["valueFrom"]["secretKeyRef"].values():
                assert f"`{word}`" in README, word


def test_the_operator_finds_the_exporter_and_the_shipper():
    deployment, service, monitor, of_shipper = MONITORING
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert labels == service["spec"]["selector"] == service["metadata"]["labels"]
    assert labels == monitor["spec"]["selector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"]
    (endpoint,), (port,), (container,) = (
        monitor["spec"]["endpoints"],
        service["spec"]["ports"],
        template["spec"]["containers"],
    )
    assert endpoint["port"] == port["name"] == port["targetPort"] == container["ports"][0]["name"]
    assert str(port["port"]) in container["args"]
    (shipper,) = [
        each
        for each in yaml.safe_load_all((REPOSITORY / "deploy" / "helm" / "logs.yaml").read_text())
        if each["kind"] == "Deployment"
    ]
    template = shipper["spec"]["template"]
    assert of_shipper["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    (endpoint,), (container,) = of_shipper["spec"]["podMetricsEndpoints"], template["spec"]["containers"]
    (port,) = container["ports"]
    assert endpoint["port"] == port["name"]
    assert f"--port={port['containerPort']}" in container["args"]


def test_the_rules_of_prometheus_become_rules_of_the_operator():
    printed = subprocess.run([REPOSITORY / "deploy" / "helm" / "rules.sh"], capture_output=True, text=True, check=True)
    rules = {rule["metadata"]["name"]: rule for rule in yaml.safe_load_all(printed.stdout)}
    files = list((REPOSITORY / "monitoring" / "prometheus" / "rules").glob("*.yml"))
    assert len(rules) == len(files) > 0
    for file in files:
        assert rules[f"tidemark-{file.stem}"]["spec"] == yaml.safe_load(file.read_text())
        assert rules[f"tidemark-{file.stem}"]["kind"] == "PrometheusRule"
