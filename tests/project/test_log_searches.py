"""Kibana's objects match the runbook, the index template and each other. Kibana itself is not at hand."""

from __future__ import annotations

import json
import re

from monitoring.logs.kibana.objects import ndjson, queries

from tests.conftest import REPOSITORY

DIRECTORY = REPOSITORY / "monitoring" / "logs"
OBJECTS = [json.loads(line) for line in (DIRECTORY / "kibana" / "tidemark.ndjson").read_text().splitlines()]
TEMPLATE = json.loads((DIRECTORY / "elasticsearch" / "template.json").read_text())["template"]


def _fields(properties, path=""):
    for name, field in properties.items():
        if "properties" in field:
            yield from _fields(field["properties"], f"{path}{name}.")
        else:
            yield f"{path}{name}", field


FIELDS = dict(_fields(TEMPLATE["mappings"]["properties"]))


def test_the_objects_are_what_their_source_makes():
    assert (DIRECTORY / "kibana" / "tidemark.ndjson").read_text() == ndjson(), "run python -m monitoring.logs.kibana"


def test_each_section_of_the_runbook_has_a_saved_search():
    sections = re.findall(r"^## (.+)$", (REPOSITORY / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert set(queries()) == set(sections)
    assert {f"tidemark-runbook-{section}" for section in sections} <= {each["id"] for each in OBJECTS}


def test_each_object_refers_to_objects_that_come_before_it():
    seen = set()
    for each in OBJECTS:
        assert {(to["type"], to["id"]) for to in each["references"]} <= seen
        seen.add((each["type"], each["id"]))
        named = each["attributes"].get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}")
        if "indexRefName" in json.loads(named):
            assert json.loads(named)["indexRefName"] in {to["name"] for to in each["references"]}
    assert len(seen) == len(OBJECTS)
    dashboard = OBJECTS[-1]
    panels = json.loads(dashboard["attributes"]["panelsJSON"])
    assert {f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in panels} == {
        to["name"] for to in dashboard["references"]
    }


def test_each_field_of_a_search_or_chart_is_mapped():
    for each in OBJECTS:
        attributes = each["attributes"]
        query = json.loads(attributes.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}")).get("query", {})
        used = set(re.findall(r"([\w.]+) (?::|>)", query.get("query", ""))) | set(attributes.get("columns", ()))
        aggregations = json.loads(attributes.get("visState", "{}")).get("aggs", ())
        used |= {each["params"]["field"] for each in aggregations if "field" in each["params"]}
        assert used <= FIELDS.keys(), each["id"]


def test_each_field_that_the_page_lists_is_mapped():
    page = (REPOSITORY / "docs" / "how-to" / "logs.md").read_text()
    listed = set(re.findall(r"`((?:tidemark|airflow|error|event|log|service|transaction)\.[a-z_.]+)`", page))
    assert len(listed) > 15
    datasets = {"airflow.task", "pgbouncer.log", "postgresql.log", "tidemark.run"}
    # tidemark.other is stored and not indexed
    assert listed - datasets - {"tidemark.other"} <= FIELDS.keys()
