"""The lines of each program as ECS fields: PostgreSQL's jsonlog, PgBouncer's text, Airflow's tasks, and our own. Pure.

Programs that write ECS fields themselves give each line its id. For the others, the id comes from what always
identifies a line: PostgreSQL's session and line number, or the file and the place in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from tidemark.logs.fields import FIRST, content_id, entry, stamp
from tidemark.logs.meltano_lines import from_meltano
from tidemark.logs.row_values import without_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# in the query comment of dbt (transform/packages/tidemark/macros/query_comment.sql)
_COMMENT = re.compile(rf"tidemark run ({_UUID})(?:, (\w+) (\w+))?")
_IN_NAME = re.compile(rf"tidemark.*?({_UUID})")
_SEVERITIES = {"LOG": "info", "NOTICE": "info", "PANIC": "critical", "FATAL": "critical", "NOISE": "debug"}
_BOUNCER = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) (\w+) \[(\d+)\] (\w+) (.*)", re.DOTALL)
_LITERAL = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_QUOTED = re.compile(r'"[^"]*"')
# PostgreSQL's class of errors in values, whose messages quote the value
_DATA_EXCEPTION = "22"


@dataclass(frozen=True)
class LinePosition:
    """Where a line was found.

    Attributes:
        path: the file.
        first: the file's first line, which identifies the file whatever its name becomes.
        offset: where in the file the line begins.
        after: the time stamp of the line before it, if there is one.
    """

    path: Path
    first: bytes
    offset: int
    after: str | None = None

    @property
    def id(self) -> str:
        """An id for the line that is here."""
        return content_id(self.first, self.offset)


def reader_of(path: Path) -> Callable[[str, LinePosition], dict[str, Any]] | None:
    """Return what turns a line of this file into fields; None if the file is no log that is shipped.

    That raises a ValueError for a line without a time.
    """
    name = path.name
    if re.search(r"\.jsonl(\.\d+)?$", name):
        return _ours
    if name.endswith(".json"):
        return _postgres
    if re.match(r"attempt=\d+\.log", name):
        return _airflow
    if re.match(r"pgbouncer.*\.log(\.\d+)?$", name):
        return _pgbouncer
    return None


def _ours(text: str, position: LinePosition) -> dict[str, Any]:
    fields = _object(text)
    if fields is None and (begins := text.rfind(FIRST)) > 0:
        # a writer was killed within the line before, and this one follows on it; that half is beyond repair
        fields = _object(text[begins:])
    if fields and "event" in fields and "timestamp" in fields:
        # from before lines had ECS fields
        return from_meltano(fields, logger="") | {"event.id": position.id}
    if fields is None or "event.id" not in fields:
        return _plain(text, position, "tidemark.run", "tidemark")
    return fields


def _postgres(text: str, position: LinePosition) -> dict[str, Any]:
    """Return the fields of a line of jsonlog.

    https://www.postgresql.org/docs/current/runtime-config-logging.html lists its keys.
    """
    # DIRECTORY/warehouse/x.json, or warehouse/log/x.json
    server = next(name for name in (position.path.parent.name, position.path.parent.parent.name) if name != "log")
    found = _object(text)
    if found is None or "timestamp" not in found:
        return _plain(text, position, "postgresql.log", "postgresql")
    message, code = str(found.get("message", "")), str(found.get("state_code", ""))
    statement = found.get("statement")
    run = _COMMENT.search(statement or "") or _IN_NAME.search(found.get("application_name", ""))
    more = {
        "error.message": message if found.get("error_severity") in {"ERROR", "FATAL", "PANIC"} else None,
        "postgresql.log.application_name": found.get("application_name"),
        "postgresql.log.backend_type": found.get("backend_type"),
        "postgresql.log.command_tag": found.get("ps"),
        "postgresql.log.context": found.get("context"),
        "postgresql.log.database": found.get("dbname"),
        "postgresql.log.detail": found.get("detail"),
        "postgresql.log.hint": found.get("hint"),
        "postgresql.log.session_id": found.get("session_id"),
        "postgresql.log.sql_state_code": code or None,
        "postgresql.log.query": _LITERAL.sub("'…'", statement) if statement else None,
        "process.pid": found.get("pid"),
        "service.node.name": server,
        "source.address": found.get("remote_host"),
        "tidemark.run_id": run[1] if run else None,
        "tidemark.model": run[3] if run and run.re is _COMMENT else None,
        "transaction.id": str(found["txid"]) if found.get("txid") else None,
        "user.name": found.get("user"),
    }
    for name, value in more.items():
        if isinstance(value, str):
            more[name] = without_values(value)
    if code.startswith(_DATA_EXCEPTION):
        message = _QUOTED.sub('"…"', message)
        more["error.message"] = message
    severity = str(found.get("error_severity", "LOG"))
    return entry(
        without_values(message),
        level="debug" if severity.startswith("DEBUG") else _SEVERITIES.get(severity, severity),
        dataset="postgresql.log",
        service="postgresql",
        at=_utc(str(found["timestamp"])),
        identifier=content_id(server, found.get("session_id"), found.get("line_num")),
        more=more,
    )


def _pgbouncer(text: str, position: LinePosition) -> dict[str, Any]:
    found = _BOUNCER.match(text)
    if found is None:
        return _plain(text, position, "pgbouncer.log", "pgbouncer")
    at, zone, pid, level, message = found.groups()
    return entry(
        message,
        level=_SEVERITIES.get(level, level),
        dataset="pgbouncer.log",
        service="pgbouncer",
        at=_utc(f"{at} {zone}"),
        identifier=position.id,
        more={"process.pid": int(pid)},
    )


def _airflow(text: str, position: LinePosition) -> dict[str, Any]:
    """Return the fields of a line of a task's log, whose path names the DAG, its run and the task."""
    names = dict(part.split("=", 1) for part in position.path.parts if "=" in part)
    dag_id, dag_run = names.get("dag_id"), names.get("run_id")
    more: dict[str, Any] = {
        "airflow.dag_id": dag_id,
        "airflow.run_id": dag_run,
        "airflow.task_id": names.get("task_id"),
        "airflow.attempt": int(re.sub(r"\D", "", names.get("attempt", "0").split(".")[0]) or 0),
        # as tidemark_airflow.run_ids, which this package does not import
        "tidemark.run_id": str(uuid5(NAMESPACE_URL, f"airflow:{dag_id}/{dag_run}")) if dag_id and dag_run else None,
    }
    identifier = content_id("/".join(f"{k}={v}" for k, v in names.items()), position.first, position.offset)
    found = _object(text)
    if found is None or "event" not in found:
        return _plain(text, position, "airflow.task", "airflow") | {k: v for k, v in more.items() if v}
    exceptions = found.get("error_detail")
    if isinstance(exceptions, list) and exceptions and isinstance(exceptions[0], dict):
        more |= {"error.type": exceptions[0].get("exc_type"), "error.message": exceptions[0].get("exc_value")}
    at = found.get("timestamp")
    return entry(
        str(found["event"]),
        level=str(found.get("level", "info")),
        dataset="airflow.task",
        service="airflow",
        at=stamp(datetime.fromisoformat(str(at))) if at else _after(position),
        identifier=identifier,
        more={**more, "log.logger": found.get("logger")},
    )


def _plain(text: str, position: LinePosition, dataset: str, service: str) -> dict[str, Any]:
    """Return the fields of a line that is not in its program's form, such as a traceback's.

    It gets the time of the line before it. The time must be the same at each reading, because it chooses the index.
    """
    return entry(text, level="error", dataset=dataset, service=service, at=_after(position), identifier=position.id)


def _after(position: LinePosition) -> str:
    if position.after is None:
        raise ValueError("The line has no time stamp, and no line with one is before it.")
    return position.after


def _utc(written: str) -> str:
    """Return a time such as `2026-11-28 19:38:33.123 UTC`; our configuration sets UTC for all servers."""
    moment = datetime.fromisoformat(written.rsplit(" ", 1)[0])
    return stamp(moment.replace(tzinfo=UTC))


def _object(text: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
