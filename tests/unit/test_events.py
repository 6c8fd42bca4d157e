from __future__ import annotations

import json

import pytest

from tidemark.run.events import BlockDone, Line, NodeDone, Rows, StreamBegan, StreamMissing, parse


def logged(event: str, **fields: object) -> str:
    return json.dumps({"event": event, "level": "info", "name": "dbt-postgres", **fields})


def metric(name: str = "record_count", **fields: object) -> str:
    tags = {"stream": "public-orders"}
    return logged("METRIC", metric_info={"metric": name, "value": 7, "tags": tags}, **fields)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        pytest.param(metric(producer=True, consumer=False), Rows("public-orders", 7, "read"), id="rows-read"),
        pytest.param(metric("rows_inserted", consumer=True), Rows("public-orders", 7, "inserted"), id="rows-inserted"),
        pytest.param(metric("rows_updated", consumer=True), Rows("public-orders", 7, "updated"), id="rows-updated"),
        pytest.param(metric("rows_deleted", consumer=True), Rows("public-orders", 7, "deleted"), id="rows-deleted"),
        pytest.param(
            logged("Beginning sync of 'public-orders' in incremental mode"),
            StreamBegan("public-orders", incremental=True),
            id="stream-from-its-bookmark",
        ),
        pytest.param(
            logged("Beginning sync of 'public-orders' in full_table mode"),
            StreamBegan("public-orders", incremental=False),
            id="stream-read-whole",
        ),
        pytest.param(
            logged("Stream `public-nowhere` was not found in the catalog"),
            StreamMissing("public-nowhere"),
            id="missing",
        ),
        pytest.param(
            logged("05:00:03  3 of 10 OK created sql view model staging.stg_orders ....... [CREATE VIEW in 0.32s]"),
            NodeDone(3, 10, "OK", "created sql view model staging.stg_orders"),
            id="model-built",
        ),
        pytest.param(
            logged("05:00:09  12 of 117 PASS at_least_fct_sales_quantity__1 ............. [PASS in 0.06s]"),
            NodeDone(12, 117, "PASS", "at_least_fct_sales_quantity__1"),
            id="test-passed",
        ),
        pytest.param(
            logged("05:00:09  2 of 117 FAIL 31 unique_stg_orders_order_id ................ [FAIL 31 in 0.06s]"),
            NodeDone(2, 117, "FAIL", "unique_stg_orders_order_id"),
            id="test-failed-on-31-rows",
        ),
        pytest.param(
            logged("05:00:09  117 of 117 ERROR a_model::a_unit_test  [ERROR in 0.20s]"),
            NodeDone(117, 117, "ERROR", "a_model::a_unit_test"),
            id="unit-test-error",
        ),
        pytest.param(
            logged("05:00:09  1 of 2 OK hook: shop.on-run-end.0 ............. [OK in 0.01s]"),
            Line("1 of 2 OK hook: shop.on-run-end.0 ............. [OK in 0.01s]", "dbt-postgres", "info"),
            id="hook",
        ),
        pytest.param(
            logged("Block run completed", block_type="InvokerCommand", success=False, err="exit code: 1"),
            BlockDone(success=False, error="exit code: 1"),
            id="block",
        ),
        pytest.param(
            logged("boom", plugin_exception={"type": "KeyError", "message": "boom"}, level="error"),
            Line("KeyError: boom", "dbt-postgres", "error"),
            id="uncaught-exception",
        ),
        pytest.param("Fatal Python error", Line("Fatal Python error", "meltano", "error"), id="not-json"),
        pytest.param("  \n", None, id="empty"),
        pytest.param(
            logged("No active environment, proceeding with stateless run! See https://…"), None, id="saves-no-state"
        ),
    ],
)
def test_a_log_line_becomes_the_right_event(line, event):
    assert parse(line) == event


def test_the_start_of_a_node_is_not_its_end():
    line = logged("05:00:03  3 of 10 START sql view model staging.stg_orders ........ [RUN]")
    assert isinstance(parse(line), Line)
