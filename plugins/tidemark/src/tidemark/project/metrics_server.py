"""Serves metrics for Prometheus from a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import start_http_server

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry


def serve(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Serve scrapes of a registry. Return a function that ends that.

    Raises:
        UsageError: the address can't be listened on.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(f"{host}:{port} can't be listened on: {error.strerror}; name another --port.") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
