"""Every query of the dashboards that is PromQL, against a Prometheus that scrapes real exporters after real runs."""

from __future__ import annotations

import math
import re
import shutil
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dotenv import dotenv_values

from singer_postgres.core.warehouse.slot_table import SlotTable
from tests.integration import pgbouncer
from tests.integration.test_metrics import FOLLOWED
from tests.monitoring.grafana import FILES, PROMETHEUS, Board, Query
from tests.monitoring.prometheus import (
    NODE_EXPORTER,
    SCRAPE_S,
    Prometheus,
    node_exporter,
    pgbouncer_exporter,
    postgres_exporter,
    prometheus,
    tidemark_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

# the first test waits until the warehouse is filled and everything was scraped
pytestmark = [pytest.mark.monitoring, pytest.mark.timeout(600)]
# panels that are empty here, though all is well, and why
EMPTY = dict.fromkeys(("Airflow's scheduler", "Tasks starving"), "Airflow sends its metrics to Prometheus 3 only")
if not shutil.which(NODE_EXPORTER):
    EMPTY["Free disk"] = f"there is no {NODE_EXPORTER}"
_RUNBOOK, _AIRFLOW = "https://git.example.com/docs/runbook.md", "https://airflow.example.com"
# as Grafana: four scrapes
_RATE_INTERVAL = f"{4 * SCRAPE_S}s"
_SCRAPES = 12


@pytest.fixture(scope="module")
def scraped(filled: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    secrets = dotenv_values(filled.root / ".env")
    owner = f"postgresql://tidemark:{secrets['TIDEMARK_ADMIN_PASSWORD']}@127.0.0.1"
    servers = {"source": ("TAP_POSTGRES_PORT", "shop"), "warehouse": ("TARGET_POSTGRES_PORT", "warehouse")}
    with filled.connect("warehouse") as connection:
        connection.execute("create table public.large as select n from generate_series(1, 20000) n")
        SlotTable("raw").ensure(connection)
        connection.execute(FOLLOWED)
    with psycopg.connect(f"{owner}:{filled.env['TAP_POSTGRES_PORT']}/shop", autocommit=True) as connection:
        connection.execute("select pg_create_physical_replication_slot('standby', true)")
    with ExitStack() as running:
        known = {"TIDEMARK_ALERTS_RUNBOOK_URL": _RUNBOOK, "AIRFLOW__API__BASE_URL": _AIRFLOW}
        targets: dict[str, list[dict[str, Any]]] = {"postgres": []}
        targets["tidemark"] = [{"targets": [running.enter_context(tidemark_metrics(filled, directory, known))]}]
        for name, (port, database) in servers.items():
            target = running.enter_context(postgres_exporter(f"{owner}:{filled.env[port]}/{database}", directory))
            labels = {"database": name, **({"source": "postgres"} if name == "source" else {})}
            targets["postgres"].append({"targets": [target], "labels": labels})
        pooler = running.enter_context(pgbouncer.pooling(filled, "transaction"))
        console = f"postgresql://tidemark_watcher:{secrets['TIDEMARK_MONITOR_PASSWORD']}@127.0.0.1:{pooler}/pgbouncer"
        targets["pgbouncer"] = [{"targets": [running.enter_context(pgbouncer_exporter(console, directory))]}]
        if shutil.which(NODE_EXPORTER):
            targets["node"] = [{"targets": [running.enter_context(node_exporter(directory))]}]
        server = running.enter_context(prometheus(targets, directory))
        client = running.enter_context(pgbouncer.connect(filled, pooler, "tidemark_watcher", "warehouse"))
        # and Prometheus itself
        _be_busy(client, server, sum(map(len, targets.values())) + 1)
        yield server


def _be_busy(client: psycopg.Connection[Any], server: Prometheus, targets: int) -> None:
    """Use the pooler and the warehouse until every target was scraped often enough for a rate."""
    deadline = time.monotonic() + 90
    enough = f"count(count_over_time(up[5m]) >= {_SCRAPES}) == {targets}"
    while not (server.now(enough) and server.now("ALERTS")):
        assert time.monotonic() < deadline, server.now("up")
        client.execute("select count(*) from raw._tidemark_runs")
        time.sleep(0.2)


def opened(name: str, server: Prometheus, **values: Any) -> Board:
    """Return a dashboard with its variables of Prometheus as Grafana fills them when it is opened."""
    board = Board.read(name)
    board.values |= values
    for variable in board.variables():
        if isinstance(variable["query"], dict) and variable["name"] not in board.values:
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found
            selector = board.promql(found[1], _RATE_INTERVAL)
            there = server.get(f"label/{found[2]}/values", **{"match[]": selector})
            assert there, variable["name"]
            board.values[variable["name"]] = variable.get("allValue", there) if variable["multi"] else there[0]
    return board


def result(server: Prometheus, board: Board, query: Query) -> list[dict[str, Any]]:
    """Return the series of a query, each with its labels and its values."""
    expr = board.promql(query.target["expr"], _RATE_INTERVAL)
    if query.range:
        return [
            {"labels": series["metric"], "values": [float(value) for _, value in series["values"]]}
            for series in server.over_time(expr, _SCRAPES * SCRAPE_S)
        ]
    return [{"labels": one["metric"], "values": [float(one["value"][1])]} for one in server.now(expr)]


def unit_of(query: Query) -> str:
    """Return the unit of a query's values."""
    panel = query.panel
    if panel["type"] != "table":
        return str(panel["fieldConfig"]["defaults"].get("unit", ""))
    (organized,) = (change for change in panel["transformations"] if change["id"] == "organize")
    several = len(panel["targets"]) > 1
    column = f"Value #{query.target['refId']}" if several else "Value"
    title = organized["options"]["renameByName"].get(column, column)
    for override in panel["fieldConfig"]["overrides"]:
        for each in override["properties"]:
            if override["matcher"]["options"] == title and each["id"] == "unit":
                return str(each["value"])
    return ""


def words_of(query: Query) -> set[float]:
    """Return the numbers that a line of states has words for."""
    mappings = query.panel["fieldConfig"]["defaults"].get("mappings", [])
    return {float(number) for mapping in mappings if mapping["type"] == "value" for number in mapping["options"]}


def problems(server: Prometheus, board: Board, query: Query) -> Iterator[str]:
    """Yield what is wrong with the values of a query."""
    series = result(server, board, query)
    if query.panel["title"] in EMPTY:
        if series:
            yield "is not empty"
        return
    if not series:
        yield f"is empty: {board.promql(query.target['expr'], _RATE_INTERVAL)}"
        return
    values = [value for one in series for value in one["values"]]
    words, kind = words_of(query), query.panel["type"]
    if not all(math.isfinite(value) and (value >= 0 or value in words) for value in values):
        yield f"has {values}"
    if unit_of(query) == "percentunit" and max(values) > 1:
        yield f"is above 100 %: {max(values)}"
    if kind == "state-timeline" and not set(values) <= words:
        yield f"has no words for some of {set(values)}"
    if kind == "stat" and len(series) != 1:
        yield f"has {len(series)} values"
    # a legend of labels that no series has would be empty
    named = set(re.findall(r"\{\{(\w+)\}\}", query.target["legendFormat"]))
    if missing := named - {label for one in series for label in one["labels"]}:
        yield f"has no labels {missing}"


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_every_panel_with_promql_has_values_in_its_unit(scraped, name):
    board = opened(name, scraped, source="postgres", stream="public-customers")
    found = [f"{query.name} {text}" for query in board.queries(PROMETHEUS) for text in problems(scraped, board, query)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_the_rows_of_a_table_of_several_queries_have_their_labels_in_common(scraped, name):
    board = opened(name, scraped, source="postgres", stream="public-customers")
    tables: dict[str, list[set[str]]] = {}
    for query in board.queries(PROMETHEUS):
        if query.panel["type"] == "table" and len(query.panel["targets"]) > 1:
            labels = {frozenset(one["labels"]) for one in result(scraped, board, query)}
            tables.setdefault(query.panel["title"], []).extend(map(set, labels))
    for title, labels in tables.items():
        assert set.intersection(*labels) in ({"source", "stream"}, {"model"}), title


def test_a_fault_is_on_the_first_row_of_the_overview(scraped):
    """The column of products was made a date, so its stream is refused; the others are well."""
    board = opened("overview", scraped)
    tiles = {query.panel["title"]: query for query in board.queries(PROMETHEUS) if query.panel["gridPos"]["y"] == 0}
    assert len(tiles) == 6
    found = {title: result(scraped, board, query)[0]["values"][0] for title, query in tiles.items()}
    assert found["Streams that failed"] == 1
    assert found["Parts down"] == 0
    (wrong,) = (query for query in board.queries(PROMETHEUS) if query.panel["title"].startswith("What is wrong"))
    alerts = {
        one["labels"]["alertname"]: (one["labels"].get("stream"), one["values"][0])
        for one in result(scraped, board, wrong)
    }
    stream, age = alerts["StreamSchemaRefused"]
    assert stream == "public-products"
    assert 0 <= age < 600


def test_links_lead_to_this_installations_airflow_and_runbook(scraped):
    board = opened("overview", scraped)
    assert board.values == {"airflow_url": _AIRFLOW, "runbook_url": _RUNBOOK}
