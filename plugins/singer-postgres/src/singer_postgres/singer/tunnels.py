"""The SSH tunnel of the MeltanoLabs plugins, whose errors are of several libraries and end in tracebacks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import RunError, SingerPostgresError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def explained(config: Mapping[str, Any]) -> Iterator[None]:
    """Tell in one line why a tunnel can't be opened.

    Raises:
        RunError: it can't.
    """
    try:
        yield
    except SingerPostgresError:
        raise
    except Exception as error:
        if not (config.get("ssh_tunnel") or {}).get("enable"):
            raise
        what = one_line(error).rstrip(".")
        msg = f"The SSH tunnel can't be opened: {what}. Check host, port, username and private_key of ssh_tunnel."
        raise RunError(msg) from error
