"""Says why several things failed, such as streams: a cause that many of them share is said once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from singer_postgres.core.driver_errors import log_fields
from singer_postgres.core.errors import StreamsFailedError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from singer_postgres.core.driver_errors import Side

_NAMED = 3
# which stream it is stands before it
_DOING = re.compile(r"^(?:Reading|Loading) \S+ (?:into \S+ )?failed: ")


def grouped(causes: Iterable[tuple[str, str]]) -> list[str]:
    """Return a text for each cause, with the names of what it failed.

    >>> grouped([("x", "no right"), ("y", "no right"), ("z", "full")])
    ['x, y: no right', 'z: full']
    """
    names: dict[str, list[str]] = {}
    for name, cause in causes:
        names.setdefault(cause, []).append(name)
    return [f"{_some(each)}: {cause}" for cause, each in names.items()]


def of_streams(failed: Mapping[str, Exception]) -> str:
    """Return the errors of streams on one line, those that differ only in the stream's name as one.

    >>> of_streams({"a-x": ValueError("a-x is odd."), "a-y": ValueError("a-y is odd."), "a-z": ValueError("Full.")})
    'a-x, a-y: each is odd. a-z: Full.'
    """
    causes = {stream: _DOING.sub("", one_line(error)) for stream, error in failed.items()}
    bare = {stream: _without_name(cause, stream) for stream, cause in causes.items()}
    several = {cause for cause in bare.values() if list(bare.values()).count(cause) > 1}
    return " ".join(
        grouped((stream, bare[stream] if bare[stream] in several else cause) for stream, cause in causes.items())
    )


def raise_failed(failed: Mapping[str, Exception], *, of: Iterable[str], could_not: str, side: Side) -> None:
    """Raise the error of the streams that failed, if any did.

    Args:
        of: all streams.
        could_not: what failed, such as `be read`.
        side: the side that a driver's error came from.

    Raises:
        Exception: the only stream's own error, or one for all.
    """
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        others = "; the others were" if set(of) - failed.keys() else ""
        msg = f"{len(failed)} streams could not {could_not}{others}. {of_streams(failed)}"
        raise StreamsFailedError(msg, [log_fields(error, side=side)["error"] for error in failed.values()])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _without_name(text: str, stream: str) -> str:
    """Return an error without the names of its stream and of its table, in either database."""
    table = re.escape(stream.partition("-")[2])
    pattern = rf'{re.escape(stream)}|(?:\w+|"[^"]+")\.(?:{table}|"{table}")'
    return re.sub(rf"(?<![\w.-])(?:{pattern})(?![\w-])", "each", text)
