"""A replication connection: starts to stream a slot, returns its messages, and confirms positions.

It uses libpq's functions through psycopg, and not psycopg2's replication cursor: that one confirms positions by itself
when it answers a keepalive, and could confirm a transaction that the warehouse doesn't have.
Source: the documentation's "Streaming Replication Protocol".
"""

from __future__ import annotations

import select
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from singer_postgres.core import session
from singer_postgres.core.errors import ReplicationError, one_line
from singer_postgres.core.log_origin import LogOrigin, parse_history

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg.pq.abc import PGconn, PGresult

_DATA, _KEEPALIVE = ord("w"), ord("k")
_keepalive = struct.Struct(">xQQB").unpack_from
# the kind, two positions and the time
_data = struct.Struct(">xQQQ")
_status = struct.Struct(">cQQQQB").pack
# microseconds of 2000-01-01 since the epoch
_EPOCH_2000_US = 946_684_800_000_000


class Replication:
    """A session that streams one slot.

    Attributes:
        confirmed: the position that was last confirmed.
        told_at: when the server was last told, by the monotonic clock.
    """

    def __init__(self, dsn: str) -> None:
        """Connect.

        Raises:
            ReplicationError: the server refuses the connection.
        """
        # imported late: only LOG_BASED streams need it, and sql_compat takes the driver that was imported first
        from psycopg import OperationalError, pq  # noqa: PLC0415

        self._pq, self._broken = pq, OperationalError
        parameters = f"{dsn} replication=database application_name='{session.application_name(session.TAP)}'"
        self._connection: PGconn = pq.PGconn.connect(parameters.encode())
        if self._connection.status != self._pq.ConnStatus.OK:
            raise ReplicationError(_error(self._connection))
        self.confirmed = 0
        self._last: bytes | memoryview = bytes(_data.size)
        self.told_at = time.monotonic()

    def set(self, settings: Mapping[str, str]) -> None:
        """Change settings of the session."""
        self._command(session.as_sql(settings))

    def identify(self) -> LogOrigin:
        """Return which log the server has."""
        row = self._command("IDENTIFY_SYSTEM")
        system, timeline = _value(row, 0), int(_value(row, 1))
        if timeline == 1:
            return LogOrigin(system, timeline)
        # the history file's name, and its text
        return LogOrigin(system, timeline, parse_history(_value(self._command(f"TIMELINE_HISTORY {timeline}"), 1)))

    def start(self, slot: str, publication: str, *, binary: bool) -> None:
        """Begin to stream from the slot's confirmed position.

        Raises:
            ReplicationError: the slot can't be streamed; the message is the server's.
        """
        options = {"proto_version": "1", "publication_names": _quoted(publication)}
        if binary:
            options["binary"] = "true"
        listed = ", ".join(f"{name} '{value}'" for name, value in options.items())
        result = self._connection.exec_(f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 ({listed})'.encode())
        if result.status != self._pq.ExecStatus.COPY_BOTH:
            raise ReplicationError(_error(self._connection))

    def read(self, timeout_s: float) -> bytes | int | None:
        """Return the next message of the log, or a position before which all was sent; None if neither comes in time.

        Raises:
            ReplicationError: the server ended the session.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                size, data = self._connection.get_copy_data(1)
            except self._broken as error:
                raise ReplicationError(one_line(error)) from error
            if size > 0:
                self._last = data
                if data[0] == _DATA:
                    return bytes(data[_data.size :])
                if data[0] == _KEEPALIVE:
                    end, _, wants_reply = _keepalive(data)
                    if wants_reply:
                        self.confirm(self.confirmed)
                    return int(end)
            elif size == 0:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not select.select([self._connection.socket], [], [], left_s)[0]:
                    return None
                with self._as_ours():
                    self._connection.consume_input()
            else:
                raise ReplicationError(_error(self._connection, self._connection.get_result()))

    @property
    def clock_us(self) -> int:
        """The server's clock when it sent the last message, in microseconds since 2000-01-01 UTC."""
        if self._last[0] == _KEEPALIVE:
            return int(_keepalive(self._last)[1])
        return int(_data.unpack_from(self._last)[2])

    def confirm(self, lsn: int, *, ask: bool = False) -> None:
        """Tell the server that it may forget everything before a position.

        Args:
            ask: have the server answer with its own position.

        Raises:
            ReplicationError: the server ended the session.
        """
        self.confirmed = max(self.confirmed, lsn)
        now = time.time_ns() // 1000 - _EPOCH_2000_US
        # written, flushed, applied
        message = _status(b"r", self.confirmed, self.confirmed, self.confirmed, now, int(ask))
        with self._as_ours():
            self._connection.put_copy_data(message)
            self._connection.flush()
        self.told_at = time.monotonic()

    def close(self) -> None:
        """End the session, so that another may stream the slot."""
        self._connection.finish()

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        try:
            yield
        except self._broken as error:
            raise ReplicationError(one_line(error)) from error

    def _command(self, command: str) -> PGresult:
        result = self._connection.exec_(command.encode())
        if result.status not in {self._pq.ExecStatus.TUPLES_OK, self._pq.ExecStatus.COMMAND_OK}:
            raise ReplicationError(_error(self._connection))
        return result


def _value(result: PGresult, column: int) -> str:
    value = result.get_value(0, column)
    assert value is not None
    return value.decode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace("'", "''") + '"'


def _error(connection: PGconn, result: PGresult | None = None) -> str:
    text = (result.error_message if result else b"") or connection.error_message
    return " ".join(text.decode(errors="replace").split()) or "the server closed the connection"
