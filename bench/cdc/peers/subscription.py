"""PostgreSQL's own logical replication, which applies each row by itself."""

from __future__ import annotations

from bench.cdc.peers.base import PUBLICATION, Peer

_STREAMED_IN_PARALLEL = 160000


class Subscription(Peer):
    """CREATE SUBSCRIPTION."""

    name = "PostgreSQL's subscription"
    settings = "CREATE SUBSCRIPTION with binary, synchronous_commit off, and streaming parallel from PostgreSQL 16 on"
    database = "peer_subscription"
    schema = "public"

    def begin(self) -> None:
        """Copy the table, and make a subscription that is not enabled."""
        self.slot("pgoutput")
        self.copy()
        with self.servers.warehouse(self.database) as connection:
            streaming = "parallel" if connection.info.server_version >= _STREAMED_IN_PARALLEL else "on"
            options = f"slot_name = '{self.database}', streaming = {streaming}, binary, synchronous_commit = off"
            connection.execute(
                f"create subscription peer connection '{self.uri('source')}' publication {PUBLICATION} "
                f"with (enabled = false, create_slot = false, copy_data = false, {options})".encode()
            )

    def start(self) -> None:
        """Enable it."""
        self._enable("enable")

    def finish(self) -> None:
        """Disable it."""
        self._enable("disable")

    def stop(self) -> None:
        """Disable it."""
        self._enable("disable")

    def _enable(self, what: str) -> None:
        with self.servers.warehouse(self.database) as connection:
            connection.execute(f"alter subscription peer {what}".encode())
