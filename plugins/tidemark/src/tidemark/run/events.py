"""Parses a run's log lines into events. Pure: no I/O here.

Lines come from two places. Meltano's log has one JSON object per line, with `event` (the text), `name` (the plugin) and
`level`. It also has the fields that tap and target log, and the Singer SDK's metrics in `metric_info`. A line of dbt's
is a JSON object inside `event`. What else utilities tell is in the run's own file (singer_postgres.core.run_events).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemark.logs.meltano_lines import dbt_line

if TYPE_CHECKING:
    from singer_postgres.core.errors import CodedError


@dataclass(frozen=True)
class Rows:
    """The tap read more rows of a stream, or the target inserted, updated or deleted some."""

    stream: str
    count: int
    what: str


@dataclass(frozen=True)
class StreamBegan:
    """The tap began to read a stream, from its bookmark on or in full."""

    stream: str
    incremental: bool


@dataclass(frozen=True)
class Followed:
    """A run that follows the log told how far it is.

    Attributes:
        changes: how many changes have arrived in this run.
        arrived: `loaded`, or `sent` to a target that acknowledges nothing.
        lag_s: the time from a commit in the source to its arrival.
    """

    changes: int
    arrived: str
    lag_s: float


@dataclass(frozen=True)
class NodeDone:
    """dbt finished one model, snapshot or test."""

    index: int
    total: int
    status: str
    what: str


@dataclass(frozen=True)
class PartOfModels:
    """dbt was asked for some of the models, and these are among them."""

    models: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """dbt leaves out these models, because a source that they stand on was not loaded."""

    models: tuple[str, ...]


@dataclass(frozen=True)
class BlockDone:
    """One Meltano block (a tap and target, or a command) ended."""

    success: bool
    error: str | None


@dataclass(frozen=True)
class Failure:
    """An error of ours, with the code of its class.

    Attributes:
        stream: the stream that the error ended; None if it ended the run.
    """

    message: str
    code: str
    transient: bool
    hint: str
    stream: str | None = None

    @classmethod
    def of(cls, error: CodedError) -> Failure:
        """Return an error that ended the run before tap or target could report it."""
        return cls(str(error), error.code, error.transient, error.cure)


@dataclass(frozen=True)
class TextLine:
    """Any other log line, for a person to read."""

    text: str
    plugin: str
    level: str


Event = Rows | StreamBegan | Followed | NodeDone | PartOfModels | LeftOut | BlockDone | Failure | TextLine

_WHAT = {
    "record_count": "read",
    "rows_inserted": "inserted",
    "rows_updated": "updated",
    "rows_deleted": "deleted",
}
# dbt's names of levels
_LEVELS = {"debug": "debug", "warn": "warning", "error": "error"}


def parse(line: str) -> list[Event]:
    """Return the events of a line of Meltano's log. A line that is not JSON (a crash) is a TextLine of level error."""
    if not line.strip():
        return []
    fields = _object(line)
    if fields is None:
        return [TextLine(line.rstrip(), "meltano", "error")]
    if fields.get("block_type"):
        return [BlockDone(bool(fields.get("success")), fields.get("err"))]
    if isinstance(fields.get("metric_info"), dict):
        return list(filter(None, [_rows(fields)]))
    return _of_plugin(fields)


def _of_plugin(fields: dict[str, Any]) -> list[Event]:
    if dbt := dbt_line(str(fields.get("event", ""))):
        fields = {**fields, "event": dbt["info"]["msg"], "level": _LEVELS.get(dbt["info"].get("level"), "info")}
    text = TextLine(_text(fields), str(fields.get("name", "meltano")), str(fields.get("level", "info")))
    if isinstance(began := fields.get("stream_began"), dict):
        return [StreamBegan(str(began.get("stream")), bool(began.get("incremental"))), text]
    if isinstance(followed := fields.get("followed"), dict):
        return [Followed(int(followed["changes"]), str(followed["arrived"]), float(followed["lag_seconds"]))]
    if isinstance(error := fields.get("error"), dict):
        return [text, _failure(error, text.text)]
    if isinstance(exception := fields.get("plugin_exception"), dict):
        # an uncaught exception
        unexpected = {"code": "unexpected", "transient": True}
        return [text, _failure(unexpected, f"{exception.get('type')}: {exception.get('message')}")]
    return [text]


def parse_own(line: str) -> list[Event]:
    """Return the events of a line of the run's own file; an empty list if the line is incomplete."""
    fields = _object(line) or {}
    if isinstance(node := fields.get("node"), dict):
        return [NodeDone(int(node["index"]), int(node["total"]), str(node["status"]), str(node["what"]))]
    for name, kind in (("part", PartOfModels), ("left_out", LeftOut)):
        if isinstance(models := fields.get(name), list):
            return [kind(tuple(map(str, models)))]
    if isinstance(error := fields.get("error"), dict):
        return [_failure(error, str(error.get("message")))]
    return []


def _object(line: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _failure(error: dict[str, Any], message: str) -> Failure:
    transient = bool(error.get("transient", True))
    return Failure(message, str(error.get("code")), transient, str(error.get("hint", "")), error.get("stream"))


def _rows(fields: dict[str, Any]) -> Rows | None:
    metric = fields["metric_info"]
    what = _WHAT.get(metric.get("metric", ""))
    stream = metric.get("tags", {}).get("stream")
    # the target also counts the records that it received; Meltano marks its metrics as `consumer`
    if what is None or stream is None or (what == "read" and fields.get("consumer")):
        return None
    return Rows(stream, int(metric["value"]), what)


def _text(fields: dict[str, Any]) -> str:
    """Return a line's text, with the exception that a plugin logged. Meltano has that in a separate field."""
    text = str(fields.get("event", ""))
    exception = fields.get("plugin_exception")
    if not isinstance(exception, dict):
        return text
    named = f"{exception.get('type')}: {exception.get('message')}"
    # for an uncaught exception, the text is already the exception's message
    return named if text == exception.get("message") else f"{text}: {named}"
