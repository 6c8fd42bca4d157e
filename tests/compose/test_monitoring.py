"""docker-compose.yml with metrics and logs: `make compose-up MONITORING=1 LOGS=1`.

Where COMPOSE_LAB starts the engine, other programs stand in for the official images, without Grafana and Kibana.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from tests.airflow.server import until
from tests.compose.test_stack import DAG, JOB, assert_hardened, changed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compose.stack import Stack

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]
LAB = {
    "PROMETHEUS_IMAGE": "prom/prometheus:lab",
    "ALERTMANAGER_IMAGE": "prom/alertmanager:lab",
    "POSTGRES_EXPORTER_IMAGE": "postgres-exporter:lab",
    "ELASTICSEARCH_IMAGE": "elasticsearch:lab",
    "GRAFANA": "0",
    "KIBANA": "0",
    # not started, but compose would pull them
    "GRAFANA_IMAGE": "elasticsearch:lab",
    "KIBANA_IMAGE": "elasticsearch:lab",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://otlp:4318/v1/metrics",
}
SERVICES = {
    "tidemark-metrics", "prometheus", "alertmanager", "pgbouncer-exporter", "postgres-exporter-source",
    "postgres-exporter-warehouse", "postgres-exporter-airflow", "log-shipper", "elasticsearch",
}  # fmt: skip


def hurry(monitoring: Path) -> None:
    """Let Prometheus and Alertmanager look every 5 s and report at once; promtool's tests hold the real times."""
    for file in (monitoring / "prometheus").glob("**/*.yml"):
        text = re.sub(r"(scrape|evaluation)_interval: \d+s", r"\1_interval: 5s", file.read_text())
        text = re.sub(r"scrape_timeout: \d+s", "scrape_timeout: 15s\n    scrape_interval: 15s", text)
        text = re.sub(r"for: \d+[mh]\b", "for: 20s", text)
        file.write_text(text.replace("airflow_scheduler_heartbeat_total[5m]", "airflow_scheduler_heartbeat_total[1m]"))
    routes = monitoring / "alertmanager" / "alertmanager.yml"
    routes.write_text(re.sub(r"group_(wait|interval): \d+[sm]", r"group_\1: 1s", routes.read_text()))


@pytest.fixture(scope="module")
def stack(stack: Stack) -> Stack:
    files = ["docker-compose.yml", "tests/compose/services/receiver.yml"]
    hurry(stack.root / "monitoring")
    if lab := os.environ.get("COMPOSE_LAB"):
        subprocess.run([lab, "monitoring"], check=True, stdout=subprocess.DEVNULL)
        files += ["docker-compose.override.yml", "tests/compose/services/lab.yml"]
        stack.environment |= LAB
        main = stack.root / "monitoring" / "prometheus" / "prometheus.yml"
        # the labels that came from Airflow
        main.write_text(
            f"{main.read_text()}\n"
            "  - {job_name: otlp, honor_labels: true, static_configs: [{targets: ['otlp:4318']}]}\n"
        )
    stack.environment["COMPOSE_FILE"] = ":".join(files)
    # how soon a task is retried
    with (stack.root / "orchestrate" / "airflow.env").open("a") as settings:
        settings.write("\nTIDEMARK_DAG_RETRY_DELAY_SECONDS=5\n")
    (stack.root / ".secrets").mkdir(mode=0o700)
    (stack.root / ".secrets" / "TIDEMARK_ALERTS_WEBHOOK_URL").write_text("http://receiver:8000/hook\n")
    stack.make("compose-up", MONITORING=1, LOGS=1)
    stack.airflow.log_in()
    stack.make("compose-run", BLOCKS=JOB)
    return stack


def prometheus(stack: Stack, path: str, **params: str) -> Any:
    url = f"http://127.0.0.1:{stack.ports['PROMETHEUS_PORT']}/api/v1/{path}"
    return requests.get(url, params=params, timeout=10).json()["data"]


def query(stack: Stack, expression: str) -> dict[str, float]:
    """Return the values of an expression by the source's stream, or by nothing."""
    found = prometheus(stack, "query", query=expression)["result"]
    return {each["metric"].get("stream", ""): float(each["value"][1]) for each in found}


def titles(stack: Stack) -> list[str]:
    """Return the titles of the messages that arrived, such as `[CRITICAL] DatabaseAway source postgres`."""
    lines = stack.compose("logs", "--no-log-prefix", "--no-color", "receiver").splitlines()
    posted = [json.loads(line) for line in lines if line.startswith("{")]
    return [attachment["title"] for each in posted for attachment in each["attachments"]]


def test_every_target_is_up_and_every_rule_is_loaded(stack):
    def targets() -> dict[str, str]:
        found = prometheus(stack, "targets")["activeTargets"]
        return {each["scrapeUrl"]: each["health"] + each["lastError"] for each in found}

    until(lambda: set(targets().values()) == {"up"}, "all targets are up", seconds=60)
    jobs = [each["labels"]["job"] for each in prometheus(stack, "targets")["activeTargets"]]
    assert {"tidemark", "postgres", "pgbouncer", "prometheus", "alertmanager"} <= set(jobs)
    assert jobs.count("postgres") == 3
    written = {
        rule.get("alert") or rule["record"]
        for file in (stack.root / "monitoring" / "prometheus" / "rules").glob("*.yml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    }
    until(
        lambda: all(
            rule["health"] == "ok" for group in prometheus(stack, "rules")["groups"] for rule in group["rules"]
        ),
        "all rules were evaluated",
        seconds=60,
    )
    loaded = {rule["name"] for group in prometheus(stack, "rules")["groups"] for rule in group["rules"]}
    assert loaded == written


def test_the_exporters_read_their_servers_with_logins_that_only_look(stack):
    assert query(stack, "count(pg_up == 1)") == {"": 3}
    assert query(stack, 'pgbouncer_pools_client_waiting_connections{database="airflow"}') == {"": 0}
    assert query(stack, 'count(tidemark_up{part!="backups"} == 1) == count(tidemark_up{part!="backups"})')
    streams = query(stack, "tidemark_stream_last_success_timestamp_seconds")
    assert "public-orders" in streams
    assert "public-orders" in query(stack, "tidemark_stream_state_behind_seconds")
    for server, role in (("source_db", "tidemark_exporter"), ("airflow_db", "tidemark_watcher")):
        member = f"select rolsuper or rolcreaterole or rolcreatedb from pg_roles where rolname = '{role}'"
        assert stack.sql(server, "postgres", member) == "f"
    readable = (
        "select count(*) from pg_class where relnamespace = 'raw'::regnamespace"
        " and has_table_privilege('tidemark_exporter', oid, 'select')"
    )
    assert stack.warehouse(readable) == "0"


def test_airflows_own_metrics_arrive(stack):
    stack.airflow.unpause(DAG)
    stack.airflow.run(DAG)
    until(lambda: query(stack, 'sum(airflow_scheduler_heartbeat_total{job="airflow"}) > 0'), "heartbeats", seconds=60)
    processes = query(stack, 'count(count by (instance) ({__name__=~"airflow_.*_heartbeat_total"}))')
    assert processes == {"": 3}


def lines(stack: Stack, run: str) -> dict[str, int]:
    """Return how many lines of a run Elasticsearch has, by the program that wrote them."""
    counts = {"datasets": {"terms": {"field": "event.dataset"}}}
    asked = {"size": 0, "query": {"term": {"tidemark.run_id": run}}, "aggs": counts}
    url = f"http://127.0.0.1:{stack.ports['ELASTICSEARCH_PORT']}/tidemark-logs"
    login = ("elastic", stack.secret("ELASTIC_PASSWORD"))
    requests.post(f"{url}/_refresh", auth=login, timeout=10)
    found = requests.post(f"{url}/_search", json=asked, auth=login, timeout=10).json()
    return {each["key"]: each["doc_count"] for each in found["aggregations"]["datasets"]["buckets"]}


def test_the_lines_of_a_dags_run_are_found_by_its_id_and_once_each(stack):
    run = stack.warehouse("select run_id from raw._tidemark_runs order by started_at desc limit 1")
    until(lambda: {"tidemark.run", "airflow.task"} <= lines(stack, run).keys(), "its lines are there", seconds=60)
    written = stack.exec("airflow-scheduler", "sh", "-c", f"grep -hF {run} /var/log/tidemark/*.jsonl | wc -l").stdout
    until(lambda: lines(stack, run)["tidemark.run"] == int(written), "all of them", seconds=60)
    # a shipper that starts again reads all files again
    before = lines(stack, run)
    stack.compose("kill", "log-shipper")
    stack.compose("start", "log-shipper")
    changed(stack)
    stack.airflow.run(DAG)
    latest = stack.warehouse("select run_id from raw._tidemark_runs order by started_at desc limit 1")
    until(lambda: lines(stack, latest), "the lines of the next run are there", seconds=60)
    assert lines(stack, run) == before


def test_servers_and_pgbouncer_write_files_that_are_shipped(stack):
    stack.sql("source_db", "shop", "do $$ begin raise log 'a line of the source'; end $$")
    url = f"http://127.0.0.1:{stack.ports['ELASTICSEARCH_PORT']}/tidemark-logs/_search"

    def found(**terms: str) -> bool:
        query = {"bool": {"filter": [{"term": {name.replace("__", "."): value}} for name, value in terms.items()]}}
        login = ("elastic", stack.secret("ELASTIC_PASSWORD"))
        return bool(requests.post(url, json={"query": query}, auth=login, timeout=10).json()["hits"]["hits"])

    for server in ("source", "warehouse", "airflow"):
        until(lambda name=server: found(event__dataset="postgresql.log", service__node__name=name), server, seconds=60)
    until(lambda: found(event__dataset="pgbouncer.log"), "PgBouncer", seconds=90)


def test_monitoring_is_hardened_as_everything_else(stack):
    services = {
        name: containers for name, containers in stack.services().items() if name in SERVICES | {"grafana", "kibana"}
    }
    assert services.keys() >= SERVICES
    assert_hardened(stack, services)
    published = {
        port["HostIp"]
        for containers in services.values()
        for each in containers
        for ports in (each["HostConfig"]["PortBindings"] or {}).values()
        for port in ports
    }
    assert published == {"127.0.0.1"}
    # no password is among the variables or arguments of a container
    for containers in services.values():
        text = stack.ok("docker", "inspect", *(each["Id"] for each in containers))
        assert [name for name, secret in stack.secrets().items() if secret in text] == []


def test_a_fault_is_one_message_and_its_end_another(stack):
    faults = {
        "source_db": "DatabaseAway source",
        "airflow-scheduler": "AirflowSchedulerGone",
        "tidemark-metrics": "TidemarkExporterAbsent",
    }
    before = len(titles(stack))

    def messages(state: str, alert: str) -> list[str]:
        return [title for title in titles(stack)[before:] if title.startswith(f"[{state}] {alert}")]

    stack.compose("stop", *faults)
    try:
        for alert in faults.values():
            until(lambda alert=alert: messages("CRITICAL", alert), f"{alert} arrives", seconds=180)
    finally:
        stack.compose("start", *faults)
    for alert in faults.values():
        until(lambda alert=alert: messages("RESOLVED", alert), f"{alert} is resolved", seconds=180)
        assert len(messages("CRITICAL", alert)) == 1, titles(stack)[before:]


def test_a_server_that_is_older_than_monitoring_gets_its_logins(stack):
    for server, database in (("source_db", "shop"), ("airflow_db", "airflow")):
        stack.sql(server, database, "drop owned by tidemark_exporter")
        stack.sql(server, database, "drop role tidemark_exporter")
        sessions = "select pid from pg_stat_activity where usesysid not in (select oid from pg_roles)"
        stack.sql(server, database, f"select pg_terminate_backend(pid) from ({sessions}) as orphans")
    until(lambda: query(stack, "count(pg_up == 0)") == {"": 2}, "two logins are refused", seconds=60)
    stack.make("compose-up", MONITORING=1, LOGS=1)
    until(lambda: query(stack, "count(pg_up == 1)") == {"": 3}, "all log in again", seconds=60)


def test_without_monitoring_its_services_end_and_airflow_sends_nothing(stack):
    stack.environment.pop("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", None)
    stack.make("compose-up")
    services = stack.services()
    assert not SERVICES & services.keys()
    (scheduler,) = services["airflow-scheduler"]
    assert "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=" in scheduler["Config"]["Env"]
