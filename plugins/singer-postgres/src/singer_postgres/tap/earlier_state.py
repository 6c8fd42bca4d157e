"""Refuses a state of earlier runs that this release can't read."""

from __future__ import annotations

import json
from typing import Any

from singer_postgres.core.errors import StateInvalidError
from singer_postgres.core.source.stream_query import ReadColumns
from singer_postgres.core.wire import FIRST_LOAD, KEY_TRAIL, LOG, SHAPE
from singer_postgres.tap.key_trail import KeyTrail
from singer_postgres.tap.streams import first_load, log_state


def refuse(state: dict[str, Any]) -> None:
    """Refuse a state that is not valid.

    Raises:
        StateInvalidError: it has a form that this release does not write.
    """
    bookmarks = state.get("bookmarks", {})
    if not isinstance(bookmarks, dict):
        msg = f"The state's bookmarks are {shown(bookmarks)}, not an object; correct or clear the state."
        raise StateInvalidError(msg)
    for stream, entry in bookmarks.items():
        if not isinstance(entry, dict):
            msg = f"The state of {stream} is {shown(entry)}, not an object; correct it, or clear the state."
            raise StateInvalidError(msg)
        for key, read in (
            (SHAPE, ReadColumns.from_json),
            (FIRST_LOAD, first_load),
            (KEY_TRAIL, KeyTrail.from_json),
            (LOG, log_state),
        ):
            try:
                entry.get(key) and read(entry[key])
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                msg = (
                    f"The state of {stream} has {key} {shown(entry[key])}, which this release can't parse: a "
                    "newer release wrote it, or someone edited it. Correct it, or read the stream again: "
                    f"`tidemark state rewind {stream} --to beginning`."
                )
                raise StateInvalidError(msg) from error


def shown(value: object) -> str:
    """Return the beginning of a value, for a message."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"  # noqa: PLR2004 - enough to recognize it
