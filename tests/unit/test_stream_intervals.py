"""Which streams a schedule loads, and so which must not become late."""

from __future__ import annotations

import json
from types import SimpleNamespace

from tidemark.metrics import catalogue, schedules
from tidemark.metrics.samples import Samples
from tidemark.project.schedules import _excluded, _streams


def test_an_excluded_stream_has_no_interval_and_a_stream_with_an_excluded_column_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(schedules.variables, "read", lambda _: {})
    tap = SimpleNamespace(extras={"select": ["public-*.*", "!public-log*.*", "!public-orders.note"]})
    content = {
        "schedules": [{"name": "hourly", "interval": "@hourly", "tasks": ["tap-postgres target-postgres"]}],
        "sources": [
            {
                "tap": "tap-postgres",
                "target": "target-postgres",
                "schema": "raw",
                "streams": _streams(tap),
                "excluded": _excluded(tap),
            }
        ],
    }
    monkeypatch.setattr(schedules.schedules, "current", lambda _: json.dumps(content))
    samples = Samples()
    names = [("raw", "public-orders"), ("raw", "public-log_lines"), ("raw", "other-orders")]
    schedules.Schedules(SimpleNamespace(root=tmp_path)).tell(samples, names)
    assert samples.of(catalogue.STREAM_INTERVAL) == {("raw", "public-orders"): 3600}
