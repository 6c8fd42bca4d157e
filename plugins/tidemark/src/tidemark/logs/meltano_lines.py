"""Meltano's log records as ECS fields. Pure: no I/O here.

A record of Meltano's is a dictionary: `event` is the text, `name` the plugin that wrote the line, and beside them are
the fields that tap and target logged. dbt's lines are JSON inside `event`, because Meltano parses no utility's log.
"""

from __future__ import annotations

import json
from typing import Any

from tidemark.logs.fields import entry
from tidemark.logs.row_values import without_values

_DATASET = "tidemark.run"
# what structlog and Meltano add for themselves
_NOISE = frozenset(
    {
        "_logger",
        "_name",
        "stdio",
        "cmd_type",
        "app_name",
        "thread_name",
        "consumer",
        "producer",
        "string_id",
        "set_number",
    }
)
_NS = 1_000_000_000


def dbt_line(text: str) -> dict[str, Any] | None:
    """Return a line of dbt's JSON log: `info` and `data`. None if the text is not one."""
    if not text.startswith("{"):
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    is_dbts = isinstance(fields, dict) and isinstance(fields.get("info"), dict) and isinstance(fields.get("data"), dict)
    return fields if is_dbts and "msg" in fields["info"] else None


def from_meltano(record: dict[str, Any], *, logger: str) -> dict[str, Any]:
    """Return the ECS fields of a record of Meltano's.

    Args:
        record: the record; this takes its known fields out of it.
        logger: the name of the logger that it came from.
    """
    text, level = str(record.pop("event", "")), str(record.pop("level", "info"))
    service = record.pop("name", None)
    for name in _NOISE:
        record.pop(name, None)
    error = _object(record.pop("error", None))
    exception = _object(record.pop("plugin_exception", None)) or _own_exception(record.pop("exception", None))
    metric, began = _object(record.pop("metric_info", None)), _object(record.pop("stream_began", None))
    tags = _object(metric.pop("tags", None))
    tags.pop("pid", None)
    if metric:
        text = f"{metric.get('metric')}: {metric.get('value')}"
    plugin_logger = str(record.pop("plugin_logger", ""))
    more: dict[str, Any] = {
        "log.logger": plugin_logger or logger,
        "process.pid": record.pop("pid", None),
        "tidemark.run_id": record.pop("run_id", None),
        "tidemark.state_id": record.pop("job_name", None),
        "tidemark.stream": error.pop("stream", None)
        or tags.pop("stream", None)
        or began.pop("stream", None)
        or record.pop("stream_name", None)
        or _of_logger(plugin_logger, service),
        "tidemark.metric.name": metric.pop("metric", None),
        "tidemark.metric.value": metric.pop("value", None),
    }
    if service and (dbt := dbt_line(text)):
        text, level, of_dbt = _from_dbt(dbt)
        more |= of_dbt
    if record.pop("block_type", None):
        more |= _of_block(record)
    if error or exception:
        more |= _of_error(text, error, exception)
    if "duration_seconds" in record:
        more["event.duration"] = int(float(record.pop("duration_seconds")) * _NS)
    text = without_values(text)
    for name in ("error.message", "error.stack_trace"):
        if isinstance(said := more.get(name), str):
            more[name] = without_values(said)
    at = record.pop("timestamp", None)
    # fields that no part of this project logs; they are kept, and not indexed
    more["tidemark.other"] = {**record, **({"tags": tags} if tags else {})}
    return entry(text, level=level, dataset=_DATASET, service=str(service or "meltano"), at=at, more=more)


def _of_logger(logger: str, service: object) -> str | None:
    """Return the stream of a logger's name: the SDK logs a stream's lines as `tap-postgres.public-orders`."""
    name = logger.removeprefix(f"{service}.")
    return name if name != logger else None


def _from_dbt(line: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    info, data = line["info"], line["data"]
    node = _object(data.get("node_info"))
    seconds = data.get("execution_time")
    failed = data.get("status") in {"error", "fail", "runtime error"}
    more = {
        "event.code": info.get("code"),
        "event.action": info.get("name"),
        "event.outcome": ("failure" if failed else "success") if "status" in data and node else None,
        "event.duration": int(float(seconds) * _NS) if seconds is not None else None,
        "process.pid": info.get("pid"),
        "tidemark.model": node.get("node_name"),
        "tidemark.node.type": node.get("resource_type"),
        "tidemark.node.status": data.get("status") if node else None,
        "tidemark.dbt.invocation_id": info.get("invocation_id"),
    }
    return str(info["msg"]).strip(), str(info.get("level", "info")), {k: v for k, v in more.items() if v is not None}


def _of_block(record: dict[str, Any]) -> dict[str, Any]:
    success = bool(record.pop("success", False))
    return {"event.outcome": "success" if success else "failure", "error.message": record.pop("err", None)}


def _of_error(text: str, error: dict[str, Any], exception: dict[str, Any]) -> dict[str, Any]:
    return {
        "error.code": error.get("code", "unexpected"),
        "error.message": exception.get("message") or text,
        "error.type": exception.get("type"),
        "error.stack_trace": exception.get("stack_trace") or _stack(exception),
        "tidemark.error.transient": error.get("transient"),
        "tidemark.error.hint": error.get("hint"),
    }


def _own_exception(exception: object) -> dict[str, Any]:
    """Return an exception of Meltano's own, as structlog's dict_tracebacks has it: a list, the outermost first."""
    if not isinstance(exception, list) or not exception or not isinstance(exception[0], dict):
        return {"message": exception} if isinstance(exception, str) else {}
    first = exception[0]
    return {"type": first.get("exc_type"), "message": first.get("exc_value"), "traceback": first.get("frames")}


def _stack(exception: dict[str, Any]) -> str | None:
    frames = exception.get("traceback")
    if not isinstance(frames, list):
        return None
    found = (frame for frame in frames if isinstance(frame, dict))
    return "\n".join(
        f"{f.get('filename')}:{f.get('lineno')} {f.get('function') or f.get('name')}: {str(f.get('line', '')).strip()}"
        for f in found
    )


def _object(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
