"""A log line as ECS fields. Pure: no I/O here.

https://www.elastic.co/docs/reference/ecs has the meaning of each field; ours begin with `tidemark.`. Names are dotted,
not nested: Elasticsearch reads both alike, and a person reads a flat line more easily.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "8.11.0"
# the first field of each line: it also tells where a line begins if a killed writer left half a line before it
FIRST = '{"@timestamp"'
INDEX = "tidemark-logs"
_LEVELS = {"warn": "warning", "fatal": "critical"}


def entry(  # noqa: PLR0913 - each argument has a name
    message: str,
    *,
    level: str,
    dataset: str,
    service: str,
    at: str | None = None,
    identifier: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a line's fields. Those of `more` that are None or empty are omitted.

    Args:
        message: the text for a person.
        level: `debug`, `info`, `warning`, `error` or `critical`; dbt's `warn` is a warning.
        dataset: the kind of log, such as `tidemark.run` or `postgresql.log`.
        service: the program that wrote the line.
        at: its time, in ISO 8601 and UTC; now by default.
        identifier: identifies the line among all others; a new one by default.
        more: further fields.
    """
    level = level.lower()
    return {
        "@timestamp": at or stamp(datetime.now(UTC)),
        "log.level": _LEVELS.get(level, level),
        "message": message,
        "ecs.version": VERSION,
        "event.id": identifier or uuid.uuid4().hex,
        "event.dataset": dataset,
        "service.name": service,
        **{name: value for name, value in (more or {}).items() if value is not None and value not in ("", {})},
    }


def stamp(moment: datetime) -> str:
    """Return a time as ECS has it: UTC, with microseconds, and always of the same length."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def dump(fields: Mapping[str, Any]) -> str:
    """Return the fields as one JSON line, without its end."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False, default=str)


def content_id(*parts: object) -> str:
    """Return an id that is the same whenever the same line is read at the same position."""
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="replace")).hexdigest()[:32]


def index_of(fields: Mapping[str, Any]) -> str:
    """Return the daily index of a line: the day of the line's own time stamp, whenever it is sent.

    An id identifies a line within one index only, so the same line must always go to the same one.

    Raises:
        ValueError: the line has no valid time stamp.
    """
    moment = datetime.fromisoformat(str(fields["@timestamp"]))
    day = moment.astimezone(UTC) if moment.tzinfo else moment
    return f"{INDEX}-{day:%Y.%m.%d}"
