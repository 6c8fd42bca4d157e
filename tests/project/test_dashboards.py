"""Grafana's dashboards against their source, the SDK's types, the metrics, the data sources and the runbook."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from monitoring.grafana.generate.__main__ import BOARDS, DEMO_BOARDS
from monitoring.grafana.generate.__main__ import main as generate

from tests.conftest import REPOSITORY
from tidemark.metrics import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAFANA = REPOSITORY / "monitoring" / "grafana"
DEMO = REPOSITORY / "demo" / "shop" / "dashboards"
FILES = sorted([*(GRAFANA / "dashboards").glob("*.json"), *DEMO.glob("*.json")])
METRICS = {metric.name: set(metric.labels) for metric in catalogue.ALL}
# $name, ${name}, ${name.field} and ${name:format}
VARIABLE = re.compile(r"\$\{(\w+)[.:}]|\$([a-z_]\w*)")
# what Grafana knows without a definition
BUILT_IN = {"__all", "__rate_interval", "__data", "__value", "__url_time_range"}
BUILT_IN |= {"__timeFilter", "__timeFrom", "__timeTo"}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def saved(request) -> dict[str, Any]:
    return json.loads(request.param.read_text())


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each query of panels, variables and annotations."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield ("sql", target["rawSql"]) if "rawSql" in target else ("promql", target["expr"])
    for variable in board["templating"]["list"]:
        query = variable["query"]
        yield ("promql", query["query"]) if isinstance(query, dict) else ("sql", query)
    for mark in board["annotations"].get("list", []):
        yield "sql", mark["target"]["rawSql"]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


def test_the_dashboards_are_those_of_their_source(tmp_path):
    made = {GRAFANA / "dashboards": tmp_path / "all", DEMO: tmp_path / "demo"}
    for directory in made.values():
        directory.mkdir()
    generate(*made.values())
    for there, directory in made.items():
        assert {path.name for path in there.glob("*.json")} == {path.name for path in directory.iterdir()}
    assert len(FILES) == len(BOARDS) + len(DEMO_BOARDS)
    for path in FILES:
        text = (made[path.parent] / path.name).read_text()
        assert path.read_text() == text, f"{path.name} is out of date: make dashboards"


def test_a_dashboard_is_read_and_written_by_the_sdks_types_without_a_change(saved):
    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(saved), cls=JSONEncoder))
    # the SDK only has the target of Grafana's own annotations
    for mark in (*saved["annotations"].get("list", []), *again["annotations"].get("list", [])):
        assert mark.pop("target")
    assert again == saved


def test_panels_have_their_own_number_and_place(saved):
    numbers = [panel["id"] for panel in saved["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [panel["gridPos"] for panel in saved["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        apart_across = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_down = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_across or apart_down, (one, other)


def test_a_panel_says_what_it_shows_in_which_unit_and_what_it_means_to_be_empty(saved):
    known = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
    for panel in panels(saved):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["noValue"], panel["title"]
        if panel["type"] in {"stat", "timeseries", "bargauge"}:
            assert defaults["unit"] in known or defaults["unit"].startswith("suffix:"), panel["title"]
        for override in panel["fieldConfig"]["overrides"]:
            for each in override["properties"]:
                assert each["id"] != "unit" or each["value"] in known, panel["title"]


def test_a_missing_value_never_has_the_color_of_health(saved):
    """Grafana would give it the color of the lowest threshold."""
    for panel in panels(saved):
        if panel["type"] == "stat":
            mappings = panel["fieldConfig"]["defaults"]["mappings"]
            (special,) = (mapping["options"] for mapping in mappings if mapping["type"] == "special")
            assert special["match"] == "null+nan"
            assert special["result"]["text"] == panel["fieldConfig"]["defaults"]["noValue"]
            assert special["result"]["color"] != "green"


def test_what_is_said_of_a_column_is_said_of_one_that_the_table_has(saved):
    for panel in panels(saved):
        if panel["type"] == "table":
            (organized,) = (change["options"] for change in panel["transformations"] if change["id"] == "organize")
            titles = {organized["renameByName"].get(name, name) for name in organized["indexByName"]}
            assert {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]} <= titles
            assert {each["displayName"] for each in panel.get("options", {}).get("sortBy", [])} <= titles


def test_each_data_source_that_a_dashboard_names_is_provisioned():
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "tidemark.yml").read_text())
    there = {(source["type"], source["uid"]) for source in provisioned["datasources"]}
    named = set()
    for path in FILES:
        board = json.loads(path.read_text())
        shown = panels(board)
        places = [*shown, *(target for panel in shown for target in panel["targets"])]
        places += [*board["templating"]["list"], *board["annotations"].get("list", [])]
        named |= {(place["datasource"]["type"], place["datasource"]["uid"]) for place in places}
    assert named == there


def test_compose_gives_grafana_each_variable_and_secret_of_its_data_sources():
    grafana = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["grafana"]
    text = (GRAFANA / "provisioning" / "datasources" / "tidemark.yml").read_text()
    page = (REPOSITORY / "docs" / "how-to" / "monitoring.md").read_text()
    variables = set(re.findall(r"\$\{(\w+)\}", re.sub(r"^ *#.*$", "", text, flags=re.MULTILINE)))
    assert "TARGET_POSTGRES_HOST" in variables
    assert variables <= set(grafana["environment"])
    assert set(re.findall(r"\$__file\{/run/secrets/(\w+)\}", text)) <= set(grafana["secrets"])
    providers = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "tidemark.yml").read_text())["providers"]
    places = ("./monitoring/grafana/dashboards", "${DEMO_DASHBOARDS:-./demo/shop/dashboards}")
    for place, provider in zip(places, providers, strict=True):
        assert f"{place}:{provider['options']['path']}:ro" in grafana["volumes"]
    # the page has the ends of names whose beginning it has
    assert all(f"`{name}`" in page or f"`_{name.rpartition('_')[2]}`" in page for name in variables)


def test_uids_are_unique_and_links_lead_to_dashboards_that_exist():
    boards = [json.loads(path.read_text()) for path in FILES]
    uids = {board["uid"] for board in boards}
    assert len(uids) == len(boards)
    links = {uid for board in boards for text in strings(board) for uid in re.findall(r"^/d/([\w-]+)", text)}
    assert links
    assert links <= uids


def test_each_variable_that_is_used_is_defined_and_each_that_is_defined_is_used(saved):
    found = {name for text in strings(saved) for pair in VARIABLE.findall(text) for name in pair if name}
    defined = {variable["name"] for variable in saved["templating"]["list"]}
    assert found - BUILT_IN == defined


def test_each_metric_of_tidemark_and_its_labels_are_in_the_catalogue(saved):
    for language, text in queries(saved):
        if language == "sql":
            continue
        for name, selector in re.findall(r"\b(tidemark_[a-z_]+)\b(?:\{([^}]*)\})?", text):
            assert name in METRICS, text
            assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) <= METRICS[name], text


def test_links_to_the_runbook_lead_to_its_sections(saved):
    page = (REPOSITORY / "docs" / "runbook.md").read_text()
    for text in strings(saved):
        for anchor in re.findall(r"\$\{runbook_url\}#([\w-]+)", text):
            assert re.search(rf'^## {anchor}$|<a id="{anchor}">', page, re.MULTILINE), anchor
