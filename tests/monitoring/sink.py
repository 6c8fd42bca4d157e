"""A stand-in for Elasticsearch: osmem-server, which speaks its protocol and keeps everything in memory."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import requests
from osmem_server import resolve_binary

from tests.ports import free_port

if TYPE_CHECKING:
    from typing import Self

ALIAS = "tidemark-logs"


class Sink:
    """The stand-in, on one port, also after a restart. It begins stopped, as in an outage."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, with nothing in it."""
        program = [resolve_binary(), "--addr", f"127.0.0.1:{self._port}", "--no-ja", "--no-stdin-watch"]
        self._server = subprocess.Popen(
            [*program, f"--parent-pid={os.getpid()}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while True:
            with suppress(requests.ConnectionError):
                requests.get(self.url, timeout=30)
                return
            assert self._server.poll() is None
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it; it loses everything."""
        if self._server:
            self._server.kill()
            self._server.wait()
            self._server = None

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = requests.request(method, f"{self.url}{path}", json=body, timeout=30)
        found: dict[str, Any] = answer.json()
        return found

    def search(self, query: str, **more: Any) -> list[dict[str, Any]]:
        """Return the lines that a query in Kibana's or Lucene's words finds, the oldest first."""
        body = {"query": {"query_string": {"query": query}}, "sort": ["@timestamp"], "size": 10_000, **more}
        self.ask("POST", f"/{ALIAS}/_refresh")
        hits: list[dict[str, Any]] = self.ask("POST", f"/{ALIAS}/_search", body).get("hits", {}).get("hits", [])
        return hits

    def stored(self) -> list[tuple[str, str]]:
        """Return index and id of each stored line."""
        return sorted((hit["_index"], hit["_id"]) for hit in self.search("*", _source=False))
