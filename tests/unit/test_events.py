"""How the lines of a run become events."""

from __future__ import annotations

import json

import pytest

from tidemark.run.events import BlockDone, Failure, Followed, NodeDone, Rows, StreamBegan, TextLine, parse, parse_own


def logged(event: str, **fields: object) -> str:
    return json.dumps({"event": event, "level": "info", "name": "tap-postgres", **fields})


def metric(name: str = "record_count", **fields: object) -> str:
    tags = {"stream": "public-orders"}
    return logged("METRIC", metric_info={"metric": name, "value": 7, "tags": tags}, **fields)


@pytest.mark.parametrize(
    ("line", "events"),
    [
        pytest.param(metric(producer=True, consumer=False), [Rows("public-orders", 7, "read")], id="rows-read"),
        pytest.param(metric(producer=True, consumer=True), [], id="rows-given-to-the-target"),
        pytest.param(
            metric("rows_inserted", consumer=True), [Rows("public-orders", 7, "inserted")], id="rows-inserted"
        ),
        pytest.param(metric("rows_updated", consumer=True), [Rows("public-orders", 7, "updated")], id="rows-updated"),
        pytest.param(metric("rows_deleted", consumer=True), [Rows("public-orders", 7, "deleted")], id="rows-deleted"),
        pytest.param(
            logged("Reading it", stream_began={"stream": "public-orders", "incremental": True}),
            [StreamBegan("public-orders", incremental=True), TextLine("Reading it", "tap-postgres", "info")],
            id="stream-begun",
        ),
        pytest.param(
            logged("Log: 7 changes loaded", followed={"changes": 7, "arrived": "loaded", "lag_seconds": 1.5}),
            [Followed(7, "loaded", 1.5)],
            id="log-followed",
        ),
        pytest.param(
            logged("It broke", level="error", error={"code": "disk_full", "transient": True, "hint": "Make room."}),
            [TextLine("It broke", "tap-postgres", "error"), Failure("It broke", "disk_full", True, "Make room.")],
            id="error-with-a-code",
        ),
        pytest.param(
            logged("Gone", error={"code": "table_missing", "transient": False, "stream": "public-x"}),
            [
                TextLine("Gone", "tap-postgres", "info"),
                Failure("Gone", "table_missing", False, "", stream="public-x"),
            ],
            id="error-of-a-stream",
        ),
        pytest.param(
            logged("Block run completed", block_type="InvokerCommand", success=False, err="exit code: 1"),
            [BlockDone(success=False, error="exit code: 1")],
            id="block",
        ),
        pytest.param(
            logged(json.dumps({"data": {}, "info": {"msg": "Registered adapter", "level": "warn"}})),
            [TextLine("Registered adapter", "tap-postgres", "warning")],
            id="line-of-dbt",
        ),
        pytest.param(
            logged("boom", plugin_exception={"type": "KeyError", "message": "boom"}, level="error"),
            [
                TextLine("KeyError: boom", "tap-postgres", "error"),
                Failure("KeyError: boom", "unexpected", True, ""),
            ],
            id="uncaught-exception",
        ),
        pytest.param("Fatal Python error", [TextLine("Fatal Python error", "meltano", "error")], id="not-json"),
        pytest.param("  \n", [], id="empty"),
    ],
)
def test_a_line_of_meltanos_log_becomes_events_by_its_fields(line, events):
    assert parse(line) == events


def test_events_of_utilities_are_read_from_the_runs_own_file():
    node = {"index": 2, "total": 117, "status": "FAIL", "what": "unique_orders"}
    error = {"code": "tests_failed", "transient": False, "hint": "Look.", "message": "unique_orders: got 31"}
    assert parse_own(json.dumps({"node": node})) == [NodeDone(2, 117, "FAIL", "unique_orders")]
    assert parse_own(json.dumps({"error": error})) == [Failure("unique_orders: got 31", "tests_failed", False, "Look.")]
    assert parse_own('{"error": {"co') == []
