"""Errors of the MeltanoLabs plugins' SSH tunnel, which come from several libraries and would end in tracebacks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SingerPostgresError, TunnelError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def explained(config: Mapping[str, Any]) -> Iterator[None]:
    """Say in one line why the SSH tunnel can't be opened.

    Raises:
            RunError: the tunnel can't be opened.
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
        raise TunnelError(msg) from error
