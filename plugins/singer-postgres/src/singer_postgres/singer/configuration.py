"""Settings that would change nothing: refused where someone counts on them, or said."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SingerPostgresError

if TYPE_CHECKING:
    import logging
    from collections.abc import Collection, Iterable, Mapping


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


# settings that have streams for keys, or list them
BY_STREAM = ("allow_duplicates", "masks", "stream_options", "where")
# how like a stream's name another is that was meant for it; `public-order` and `public-orders` are
_ALIKE = 0.85


def check_names(named: Iterable[tuple[str, str]], known: Collection[str], logger: logging.Logger) -> None:
    """Refuse names that are misspelt, and warn of others that no stream has: a tap that inherits has its parent's too.

    Args:
        named: settings of `BY_STREAM`, each with a stream that it names.
        known: the names of all streams that there are.

    Raises:
        SingerPostgresError: a name is almost that of a stream.
    """
    without_schema = {stream.partition("-")[2]: stream for stream in known}
    for setting, stream in named:
        if stream in known:
            continue
        meant = without_schema.get(stream) or next(
            iter(difflib.get_close_matches(stream, known, n=1, cutoff=_ALIKE)), None
        )
        if meant:
            msg = (
                f"{setting} names {stream}, which the source does not have; {meant} is one. Correct {setting}; if "
                "another tap is meant, from which this one inherits it, give this one its own."
            )
            raise SingerPostgresError(msg)
        logger.warning("%s names %s, which the source does not have, and changes nothing for it", setting, stream)
