"""Settings that would change nothing: refused where someone counts on them, or said."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from singer_postgres.errors import SingerPostgresError

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Mapping


def check(
    config: Mapping[str, Any],
    known: Iterable[str],
    without_effect: Mapping[tuple[str, str | None], str],
    logger: logging.Logger,
) -> None:
    """Warn of settings that nobody knows, and refuse those that someone else would honour.

    Args:
        known: the names of all settings.
        without_effect: what to do instead, by the setting and the value that has no effect; None for any but false.

    Raises:
        SingerPostgresError: a setting would have no effect.
    """
    for (name, value), advice in without_effect.items():
        if config.get(name) and value in (None, config[name]):
            msg = f"{name} is set to {config[name]!r}, and would change nothing: {advice}."
            raise SingerPostgresError(msg)
    names = list(known)
    for name in sorted(config.keys() - set(names)):
        meant = difflib.get_close_matches(name, names, n=1)
        hint = f"; {meant[0]} is one" if meant else ""
        logger.warning("%s is not a setting and changes nothing%s. Correct or remove it", name, hint)
