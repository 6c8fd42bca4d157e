"""The alerts that `tidemark status --watch` shows are those of Prometheus' rules."""

from __future__ import annotations

import io
import re

import pytest
import yaml
from rich.console import Console

from tests.conftest import REPOSITORY
from tidemark.metrics import alert_conditions, watch
from tidemark.metrics.alert_conditions import holding
from tidemark.metrics.overview import ModelOverview, Overview, StreamOverview

NOW = 1_800_000_000.0
HOUR = 3600
RULES = {
    rule["alert"]: rule["expr"]
    for path in (REPOSITORY / "monitoring/prometheus/rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
WELL = {
    "source": "app",
    "stream": "public-orders",
    "outcome": "succeeded",
    "started": NOW - 600,
    "succeeded": NOW - 590,
    "lag": 601,
    "interval": HOUR,
    "rows": 50,
    "usual_rows": 60,
}


def alerts(*, stream=None, model=None, **rest):
    parts = {
        "parts": {"warehouse": True, "models": True},
        "build_interval": HOUR,
        "backups": 1,
        "backup_made": NOW - HOUR,
    }
    model = ModelOverview(**({"model": "fct_sales", "outcome": "success", "succeeded": NOW - 60} | (model or {})))
    found = Overview(**(parts | rest), streams=[StreamOverview(**(WELL | (stream or {})))], models=[model])
    return [each.alert for each in holding(found, NOW)]


def test_nothing_is_shown_while_all_is_well():
    assert alerts() == []


@pytest.mark.parametrize(
    ("alert", "stream"),
    [
        ("StreamFailed", {"outcome": "failed", "code": "lock_busy"}),
        ("StreamFailed", {"outcome": "killed"}),
        ("StreamNeedsRepair", {"log_state": "left the log"}),
        ("StreamNeedsRepair", {"log_state": "to be repaired"}),
        ("StreamSchemaRefused", {"outcome": "failed", "code": "column_retyped"}),
        ("StreamNotStarted", {"started": NOW - 1.6 * HOUR}),
        ("StreamNoSuccessfulRun", {"succeeded": NOW - 2.1 * HOUR}),
        ("StreamStale", {"lag": 2.1 * HOUR}),
        ("StreamBookmarkHeld", {"held": 1.1 * HOUR, "held_by": "transaction"}),
        ("StreamRejects", {"rejects": 1}),
        ("StreamNoRows", {"rows": 0}),
        ("StreamManyRows", {"rows": 501}),
        ("ReconcileDifferences", {"differences": 1}),
        ("ReconcileFailed", {"reconciled": False}),
    ],
)
def test_a_stream_in_trouble_is_shown_with_the_name_of_its_alert(alert, stream):
    assert alerts(stream=stream) == [alert]


def test_a_failure_ends_by_a_success_or_when_the_stream_is_no_longer_loaded():
    failed = {"outcome": "failed", "code": "lock_busy"}
    assert "StreamFailed" in alerts(stream=failed | {"started": NOW - 3 * HOUR, "running_rows": 5})
    assert "StreamFailed" not in alerts(stream=failed | {"started": NOW - 3 * HOUR})
    assert alerts(stream=failed | {"interval": None, "started": NOW - 47 * HOUR}) == ["StreamFailed"]
    assert alerts(stream=failed | {"interval": None, "started": NOW - 49 * HOUR}) == []


def test_a_held_lock_a_stale_model_and_an_old_backup_are_shown():
    assert "StreamLocked" in alerts(stream={"locked": True, "started": NOW - 2.1 * HOUR, "running_rows": 5})
    assert alerts(model={"succeeded": NOW - 2.1 * HOUR}) == ["ModelStale"]
    assert alerts(model={"outcome": "error"}) == ["ModelFailed"]
    assert alerts(model={"failing": 2}) == ["TestsFailing"]
    assert alerts(backup_made=NOW - 27 * HOUR) == ["BackupMissing"]
    assert alerts(backups=0, backup_made=None) == ["BackupMissing"]
    assert alerts(drill_succeeded=False) == ["BackupDrillFailed"]
    assert alerts(parts={"warehouse": False, "state": False}) == ["DatabaseAway", "TidemarkPartUnreadable"]


def test_every_condition_is_an_alert_of_prometheus_with_the_same_codes():
    named = set(re.findall(r'"([A-Z][A-Za-z]+)"', (REPOSITORY / alert_conditions.__file__).read_text()))
    assert named - RULES.keys() == set()
    codes = set(re.search(r"code=~'([^']+)'", RULES["StreamSchemaRefused"])[1].replace("\\", "").split("|"))
    assert {code.strip() for code in codes} == alert_conditions.SCHEMA_CODES


@pytest.mark.parametrize("width", [50, 60, 70, 80, 110, 160])
def test_streams_in_trouble_come_first_and_whole_on_a_screen_that_has_not_room_for_all(width):
    most = {"rows": 12_345_678, "usual_rows": 12_345_678, "lag": 86_399.0, "interval": 86_400.0}
    streams = [StreamOverview(**(WELL | most | {"stream": f"public-a_longer_table_{n:03}"})) for n in range(400)]
    bad = {"stream": "public-bad", "outcome": "failed", "code": "chunk_directory_unusable"}
    streams[300] = StreamOverview(**(WELL | bad))
    found = Overview(parts={"warehouse": True}, streams=streams, models=[], backups=1, backup_made=NOW)
    console = Console(width=width, height=24, record=True, file=io.StringIO())
    console.print(watch.screen(found, NOW, size=console.size))
    lines = console.export_text().splitlines()
    assert len(lines) <= 24
    assert re.match(r"app: public-bad +failed", lines[3])
    assert re.match(r"app: public-a_longer_table_000 +succeeded", lines[4])
    assert any(re.fullmatch(r"and 3\d\d more", line.strip()) for line in lines)
    assert any("StreamFailed" in line for line in lines)
    # a truncated number would be wrong
    figures = lines[4].split("succeeded")[1]
    assert "…" not in figures
    assert (figures.count("12,345,678") == 2) == (width == 160)
    assert ("23 h 59 min" in figures) == (width >= 80), lines[4]
