"""`tidemark monitor` on one machine, with the Prometheus and Alertmanager that are installed on it."""

from __future__ import annotations

import re
import shutil
import signal
import socket
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import requests
import yaml

from tests.airflow.server import until
from tests.integration.stages import make_checkout
from tests.ports import free_ports

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

wanted = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
    reason="needs Prometheus and Alertmanager (Debian: prometheus, prometheus-alertmanager)",
)


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    yield from make_checkout(stage="loaded")


@pytest.fixture
def ports() -> list[str]:
    """Return free ports for the exporter, Prometheus and Alertmanager."""
    return [*free_ports(2), *free_ports(1)]


def options(ports: list[str]) -> list[str]:
    names = ("--port", "--prometheus-port", "--alertmanager-port")
    return [word for pair in zip(names, ports, strict=True) for word in pair]


def page(port: str, path: str, **params: str) -> Any:
    with suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}/{path}", params=params, timeout=10)
    return None


def end(monitor: subprocess.Popen[str]) -> str:
    """Press Ctrl-C once it says that this ends it, and return what it printed; nothing that it started is left."""
    assert monitor.stdout
    lines = []
    # an exporter answers before the command has said where it is
    while not lines or (lines[-1] and "Ctrl-C ends this" not in lines[-1]):
        lines.append(monitor.stdout.readline())
    started = psutil.Process(monitor.pid).children(recursive=True)
    assert started
    monitor.send_signal(signal.SIGINT)
    rest, _ = monitor.communicate(timeout=60)
    said = "".join(lines) + rest
    assert monitor.returncode == 0, said
    assert not any(child.is_running() for child in started)
    return said


@pytest.mark.long
@wanted
def test_this_machine_is_monitored_until_ctrl_c(checkout, ports):
    exporter, prometheus, alertmanager = ports
    configuration = checkout.root / "monitoring" / "prometheus" / "prometheus.yml"
    # not every 30 s
    hurried = re.sub(r"(interval|timeout): \d+s", r"\1: 1s", configuration.read_text())
    configuration.write_text(hurried)
    monitor = checkout.start("monitor", *options(ports))
    try:

        def up() -> set[str]:
            found = page(prometheus, "api/v1/query", query="up == 1")
            return {each["metric"]["job"] for each in found.json()["data"]["result"]} if found else set()

        until(lambda: up() == {"tidemark", "prometheus", "alertmanager"}, "all are scraped", seconds=60)
        found = page(prometheus, "api/v1/query", query='tidemark_stream_rows_total{source="postgres"}')
        assert "public-orders" in found.text
        groups = page(prometheus, "api/v1/rules").json()["data"]["groups"]
        written = [
            group["name"]
            for file in (checkout.root / "monitoring" / "prometheus" / "rules").glob("*.yml")
            for group in yaml.safe_load(file.read_text())["groups"]
        ]
        assert sorted(group["name"] for group in groups) == sorted(written)
        flags = page(prometheus, "api/v1/status/flags").json()["data"]
        assert flags["web.external-url"] == f"http://127.0.0.1:{prometheus}", "links lead to where it listens"
        sent = page(prometheus, "api/v1/alertmanagers").json()["data"]["activeAlertmanagers"]
        assert [each["url"] for each in sent] == [f"http://127.0.0.1:{alertmanager}/api/v2/alerts"]
    finally:
        said = end(monitor)
    for name, port in (("tidemark metrics", exporter), ("Prometheus", prometheus), ("Alertmanager", alertmanager)):
        assert f"{name} is on http://127.0.0.1:{port}\n" in said
    assert "Alertmanager sends failed runs" in said
    assert not list((checkout.root / "monitoring").rglob("data"))


def test_without_prometheus_the_metrics_are_there_and_a_line_says_that_nobody_collects_them(checkout, ports):
    monitor = checkout.start("monitor", *options(ports), env={"PATH": "/bin-of-nobody"})
    try:
        found = until(lambda: page(ports[0], "metrics"), "the exporter answers", seconds=30)
        assert "tidemark_build_info" in found.text
    finally:
        said = end(monitor)
    assert "Prometheus is not on PATH" in said


def test_a_taken_port_ends_in_one_line(checkout, ports):
    with closing(socket.create_server(("127.0.0.1", int(ports[0])))):
        line = checkout.refusal("monitor", *options(ports))
    assert f"127.0.0.1:{ports[0]} (Address already in use)" in line
    assert f"monitor --port {int(ports[0]) + 1}" in line


@wanted
def test_a_wrong_setting_of_alerts_ends_in_one_line(checkout, ports):
    line = checkout.refusal("monitor", *options(ports), env={"TIDEMARK_ALERTS_BY": "nobody"})
    assert "TIDEMARK_ALERTS_BY=nobody" in line
