"""A faulty network: forwards connections to a server, cuts them, or blocks all traffic for a while."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Any, Self

import psycopg

# with this option, close() resets the connection, as a firewall or a crash does
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """A proxy for the server of a libpq URL; `settings` is what a program needs to connect through it."""

    def __init__(self, url: str) -> None:
        parts = psycopg.conninfo.conninfo_to_dict(url)
        self._server = (str(parts["host"]), int(str(parts["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._alone = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self.bytes = 0
        self.cuts = 0

    @property
    def settings(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self._listener.getsockname()[1]}

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._flows.set()
        self.cut()

    def cut(self) -> None:
        """Reset all open connections."""
        with self._alone:
            doomed, self._open = self._open, set()
        self.cuts += len(doomed)
        for end in doomed:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # wakes up the thread that reads from it
                end.shutdown(socket.SHUT_RD)
            end.close()

    def stall(self) -> None:
        """Block all traffic."""
        self._flows.clear()

    def flow(self) -> None:
        """Forward traffic again."""
        self._flows.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    client.close()
                    continue
                with self._alone:
                    self._open |= {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, reader: socket.socket, writer: socket.socket) -> None:
        with suppress(OSError):
            while data := reader.recv(65536):
                self._flows.wait()
                writer.sendall(data)
                self.bytes += len(data)
        for end in (reader, writer):
            with self._alone:
                self._open.discard(end)
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
