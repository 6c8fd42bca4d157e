"""This project's tap and target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cdc.ours import Ours
from bench.cdc.peers.base import Peer

if TYPE_CHECKING:
    from pathlib import Path

    from bench.cdc.servers import Servers


class Tidemark(Peer):
    """Tap and target without Meltano."""

    name = "tidemark"
    settings = "LOG_BASED with the settings of this repository, to the end of the log; without Meltano"
    database = "peer_tidemark"

    def __init__(self, servers: Servers, work: Path) -> None:
        super().__init__(servers, work)
        self._ours = Ours(servers, self.directory, self.database)

    def begin(self) -> None:
        """Load the table as any first load."""
        self._ours.begin()

    def start(self) -> None:
        """Start tap and target."""
        self.processes = self._ours.start()

    def finish(self) -> None:
        """Keep the state."""
        self._ours.finish(self.processes)
