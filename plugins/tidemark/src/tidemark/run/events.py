"""What Meltano's JSON log lines say, as events. Pure: no I/O here.

A line is a JSON object with `event` (the text), `name` (the plugin), `level` and `run_id`. The Singer SDK's metrics
come in `metric_info`; dbt's lines are text as it prints them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rows:
    """Some more rows of a stream were read by the tap; or inserted, updated or deleted by the target."""

    stream: str
    count: int
    what: str


@dataclass(frozen=True)
class StreamBegan:
    """The tap turned to a stream, to read it from its bookmark on or whole."""

    stream: str
    incremental: bool


@dataclass(frozen=True)
class NodeDone:
    """dbt finished one model, snapshot or test."""

    index: int
    total: int
    status: str
    what: str


@dataclass(frozen=True)
class BlockDone:
    """One block of `meltano run` (a tap and target, or a command) ended."""

    success: bool
    error: str | None


@dataclass(frozen=True)
class StreamMissing:
    """A stream is selected that the source does not have."""

    stream: str


@dataclass(frozen=True)
class Line:
    """Anything else, kept for the error message should the run fail."""

    text: str
    plugin: str
    level: str


Event = Rows | StreamBegan | StreamMissing | NodeDone | BlockDone | Line

_WHAT = {
    "record_count": "read",
    "rows_inserted": "inserted",
    "rows_updated": "updated",
    "rows_deleted": "deleted",
}
_BEGAN = re.compile(r"^Beginning sync of '([^']+)' in (\w+) mode")
_MISSING = re.compile(r"^Stream `([^`]+)` was not found in the catalog")
_NODE = re.compile(
    r"^(?P<index>\d+) of (?P<total>\d+) (?P<status>OK|PASS|WARN|ERROR|FAIL|SKIP|NO-OP)\b(?: \d+)? *"
    r"(?P<what>.*?)(?: \.{2,}.*| +\[.*)?$"
)
# what Meltano says of every run that saves no state, whatever the reason
_STATELESS = "No active environment, proceeding with stateless run!"
_DBT_CLOCK = re.compile(r"^\d\d:\d\d:\d\d\s+")


def parse(line: str) -> Event | None:
    """Return what `line` says; None if that is nothing. What is not JSON (a crash) is a Line of level error."""
    if not line.strip():
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return Line(line.rstrip(), "meltano", "error")
    if str(fields.get("event", "")).startswith(_STATELESS):
        return None
    if fields.get("block_type"):
        return BlockDone(bool(fields.get("success")), fields.get("err"))
    return _rows(fields) or _text(fields)


def _text(fields: dict[str, Any]) -> Event:
    text = _DBT_CLOCK.sub("", str(fields.get("event", "")))
    if found := _BEGAN.match(text):
        return StreamBegan(found[1], incremental=found[2] == "incremental")
    if found := _MISSING.match(text):
        return StreamMissing(found[1])
    # hooks go by numbers of their own, and are nothing that was asked for
    if (found := _NODE.match(text)) and not (found["status"] == "OK" and found["what"].startswith("hook: ")):
        return NodeDone(int(found["index"]), int(found["total"]), found["status"], found["what"].strip())
    return Line(_with_exception(text, fields), str(fields.get("name", "meltano")), str(fields.get("level", "info")))


def _rows(fields: dict[str, Any]) -> Rows | None:
    metric = fields.get("metric_info")
    if not isinstance(metric, dict):
        return None
    what = _WHAT.get(metric.get("metric", ""))
    stream = metric.get("tags", {}).get("stream")
    # the target counts the records that it was given too; `consumer` is Meltano's word for it
    if what is None or stream is None or (what == "read" and fields.get("consumer")):
        return None
    return Rows(stream, int(metric["value"]), what)


def _with_exception(text: str, fields: dict[str, Any]) -> str:
    """Add the exception that a plugin logged, which Meltano keeps apart from the text."""
    exception = fields.get("plugin_exception")
    if not isinstance(exception, dict):
        return text
    named = f"{exception.get('type')}: {exception.get('message')}"
    # an uncaught one is logged with its message for text
    return named if text == exception.get("message") else f"{text}: {named}"
