"""Kibana's saved objects: a data view, a saved search for each section of the runbook, charts and a dashboard.

They have the form of an export from Kibana 8, which Kibana 9 reads too.
"""

from __future__ import annotations

import json
from typing import Any

from singer_postgres.core.errors import catalogue
from tidemark import errors  # noqa: F401 - its classes are in the catalogue, too
from tidemark.logs.fields import INDEX

VIEW = "tidemark-logs"
COLUMNS = ["service.name", "log.level", "tidemark.stream", "tidemark.model", "error.code", "message", "tidemark.run_id"]
ERRORS = "(error.code : * or log.level : (error or critical))"
# sections of the runbook about failures that have no code of a run, and the lines that tell of them
_TASKS = 'event.dataset : "airflow.task"'
_SERVERS = 'event.dataset : "postgresql.log"'
_WARNINGS = "log.level : (warning or error or critical)"
BESIDE = {
    "timeout": f"{_TASKS} and message : timeout",
    "deadline": f"{_TASKS} and message : deadline",
    "retry": f"{_TASKS} and airflow.attempt > 1",
    "delivery": f"{_TASKS} and message : alert",
    "scheduler": f"{_TASKS} and {_WARNINGS}",
    "starving": f"{_TASKS} and message : (pool or slots or queued)",
    "lag": 'event.action : ("run-began" or "run-ended")',
    "held": 'event.dataset : "tidemark.run" and message : (transaction or transactions)',
    "rejects": 'event.dataset : "tidemark.run" and message : _tidemark_rejects',
    "volume": 'event.action : "stream-ended"',
    "marts": "tidemark.node.type : (model or snapshot or seed) and event.outcome : *",
    "disk": 'error.code : disk_full or message : "No space left"',
    "connections": f'{_SERVERS} and message : ("too many" or "connection slots")',
    "transactions": f"{_SERVERS} and message : (transaction or deadlock or waiting)",
    "vacuum": f"{_SERVERS} and message : vacuum",
    "slots": f"{_SERVERS} and message : (replication or slot or WAL)",
    "poolers": f'event.dataset : "pgbouncer.log" and {_WARNINGS}',
    "exporter": 'event.dataset : "tidemark.run" and message : metrics',
}
# a dashboard is 48 units wide
_WIDTH, _HEIGHT = 48, 12
_SOURCE = "kibanaSavedObjectMeta.searchSourceJSON.index"


def queries() -> dict[str, str]:
    """Return the query of each section of the runbook, in KQL."""
    codes: dict[str, list[str]] = {}
    for kind in catalogue():
        codes.setdefault(kind.section, []).append(kind.code)
    found = {section: f"error.code : ({' or '.join(sorted(each))})" for section, each in codes.items()}
    return dict(sorted((found | BESIDE).items()))


def ndjson() -> str:
    """Return all objects, one a line, in an order in which each comes after those that it refers to."""
    searches = [_search("errors", "Errors", ERRORS), _search("runs", "Runs", 'event.action : "run-ended"')]
    searches += [_search(f"runbook-{section}", f"Runbook: {section}", query) for section, query in queries().items()]
    charts = _charts()
    everything = [_view(), *searches, *charts, _dashboard(charts, searches[:2])]
    return "".join(json.dumps(each, ensure_ascii=False, sort_keys=True) + "\n" for each in everything)


def _object(kind: str, name: str, version: str, attributes: dict[str, Any], references: list[Any]) -> dict[str, Any]:
    return {
        "type": kind,
        "id": f"tidemark-{name}",
        "attributes": attributes,
        "references": references,
        "coreMigrationVersion": "8.8.0",
        "typeMigrationVersion": version,
    }


def _view() -> dict[str, Any]:
    attributes = {"title": INDEX, "name": "Tidemark's logs", "timeFieldName": "@timestamp"}
    return _object("index-pattern", "logs", "8.0.0", attributes, [])


def _source(query: str) -> dict[str, str]:
    source = {"query": {"query": query, "language": "kuery"}, "filter": [], "indexRefName": _SOURCE}
    return {"searchSourceJSON": json.dumps(source)}


def _to_view() -> list[dict[str, str]]:
    return [{"type": "index-pattern", "id": VIEW, "name": _SOURCE}]


def _search(name: str, title: str, query: str) -> dict[str, Any]:
    attributes = {
        "title": f"Tidemark: {title}",
        "description": "",
        "columns": COLUMNS,
        "sort": [["@timestamp", "asc"]],
        "grid": {},
        "hideChart": False,
        "kibanaSavedObjectMeta": _source(query),
    }
    return _object("search", name, "8.0.0", attributes, _to_view())


def _charts() -> list[dict[str, Any]]:
    return [
        _chart("lines", "Lines by level", "", _bars("log.level")),
        _chart("outcomes", "Runs by outcome", 'event.action : "run-ended"', _bars("event.outcome")),
        _chart("codes", "Errors by code", f"{ERRORS} and error.code : *", _table("error.code")),
        _chart("streams", "Errors by stream", f"{ERRORS} and tidemark.stream : *", _table("tidemark.stream")),
        _chart("models", "Errors by model and test", f"{ERRORS} and tidemark.model : *", _table("tidemark.model")),
    ]


def _chart(name: str, title: str, query: str, state: dict[str, Any]) -> dict[str, Any]:
    title = f"Tidemark: {title}"
    attributes = {
        "title": title,
        "description": "",
        "uiStateJSON": "{}",
        "version": 1,
        "visState": json.dumps({"title": title, **state}),
        "kibanaSavedObjectMeta": _source(query),
    }
    return _object("visualization", name, "8.5.0", attributes, _to_view())


def _count() -> dict[str, Any]:
    return {"id": "1", "enabled": True, "type": "count", "schema": "metric", "params": {}}


def _terms(number: int, field: str, schema: str) -> dict[str, Any]:
    params = {"field": field, "orderBy": "1", "order": "desc", "size": 20}
    return {"id": str(number), "enabled": True, "type": "terms", "schema": schema, "params": params}


def _bars(field: str) -> dict[str, Any]:
    """Return bars over time, one colour for each value of the field."""
    over_time = {
        "id": "2",
        "enabled": True,
        "type": "date_histogram",
        "schema": "segment",
        "params": {"field": "@timestamp", "interval": "auto", "min_doc_count": 1},
    }
    params = {
        "type": "histogram",
        "addTooltip": True,
        "addLegend": True,
        "legendPosition": "right",
        "categoryAxes": [
            {
                "id": "CategoryAxis-1",
                "type": "category",
                "position": "bottom",
                "show": True,
                "scale": {"type": "linear"},
                "labels": {"show": True},
                "title": {},
            }
        ],
        "valueAxes": [
            {
                "id": "ValueAxis-1",
                "name": "LeftAxis-1",
                "type": "value",
                "position": "left",
                "show": True,
                "scale": {"type": "linear", "mode": "normal"},
                "labels": {"show": True},
                "title": {"text": "lines"},
            }
        ],
        "seriesParams": [
            {
                "show": True,
                "type": "histogram",
                "mode": "stacked",
                "data": {"id": "1", "label": "lines"},
                "valueAxis": "ValueAxis-1",
            }
        ],
    }
    return {"type": "histogram", "params": params, "aggs": [_count(), over_time, _terms(3, field, "group")]}


def _table(field: str) -> dict[str, Any]:
    params = {"perPage": 10, "showPartialRows": False, "showTotal": False, "totalFunc": "sum"}
    return {"type": "table", "params": params, "aggs": [_count(), _terms(2, field, "bucket")]}


def _dashboard(charts: list[dict[str, Any]], searches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the dashboard: two charts, three tables, then the lines."""
    thirds, half = _WIDTH // 3, _WIDTH // 2
    places = [(0, 0, half), (half, 0, half), *((column * thirds, _HEIGHT, thirds) for column in range(3))]
    places += [(0, (2 + row) * _HEIGHT, _WIDTH) for row in range(len(searches))]
    panels, references = [], []
    for number, (shown, (x, y, width)) in enumerate(zip([*charts, *searches], places, strict=True), 1):
        grid = {"x": x, "y": y, "w": width, "h": _HEIGHT, "i": str(number)}
        panel = {"panelIndex": str(number), "gridData": grid, "type": shown["type"], "embeddableConfig": {}}
        panels.append({**panel, "panelRefName": f"panel_{number}"})
        references.append({"type": shown["type"], "id": shown["id"], "name": f"{number}:panel_{number}"})
    attributes = {
        "title": "Tidemark's runs",
        "description": "What failed, since when, and the lines that say why. Narrow it by tidemark.run_id.",
        "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "version": 1,
        "timeRestore": True,
        "timeFrom": "now-24h",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 60_000},
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": json.dumps({"query": {"query": "", "language": "kuery"}, "filter": []})
        },
    }
    return _object("dashboard", "runs", "8.9.0", attributes, references)
