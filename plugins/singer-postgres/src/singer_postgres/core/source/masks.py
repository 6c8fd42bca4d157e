"""The masks of columns whose values must not leave the source."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SettingInvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

MASKS = ("sha256", "null", "redact")
# what they give is a text, whatever the column's type is
AS_TEXT = frozenset({"sha256", "redact"})


def refuse(masks: Mapping[str, Mapping[str, str]], secret: str | None, *, variable: str) -> None:
    """Refuse masks that no stream could be read with.

    Args:
        masks: by stream and column.
        secret: the key of sha256 masks.
        variable: the variable for that key.

    Raises:
        SettingInvalidError: a mask is unknown, or the key is missing.
    """
    for stream, columns in masks.items():
        for column, mask in columns.items():
            if mask not in MASKS:
                near = difflib.get_close_matches(str(mask), MASKS, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(MASKS)}."
                msg = f"masks: {mask!r} of {stream}.{column} is no mask; {hint}"
                raise SettingInvalidError(msg)
    if not secret and (hashed := next((stream for stream, each in masks.items() if "sha256" in each.values()), None)):
        msg = (
            f"masks: {hashed} has a mask sha256, which needs a key: set mask_secret ({variable} in .env or the "
            "environment) to a long random text, and keep it."
        )
        raise SettingInvalidError(msg)
