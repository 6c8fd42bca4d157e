"""Tap and target of this project, from the source into the warehouse of `Servers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.singer.conftest import Pipe

from singer_postgres.core.source import log_tables

if TYPE_CHECKING:
    from pathlib import Path

    from bench.cdc.servers import Servers

SLOT = log_tables.name_of("tap-postgres")
_LOG_BASED = {"public-items": {"replication-method": "LOG_BASED"}}


class Ours:
    """Runs from one state to the next."""

    def __init__(self, servers: Servers, directory: Path, database: str) -> None:
        self.pipe = Pipe(servers.urls["source"], servers.warehouse_url(database), directory)
        self.pipe.tap["max_parallel"] = 2
        self._catalog: dict[str, Any] = {}

    def begin(self) -> None:
        """Make publication and slot, and load the table."""
        self.pipe.do(f"create publication {SLOT} for table items")
        self.pipe.do(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
        # once, as Meltano keeps it
        self._catalog = self.pipe.catalog(_LOG_BASED)
        self.finish(self.start())

    def start(self) -> list[Any]:
        """Start tap and target."""
        return self.pipe.start(self._catalog, self.pipe.state)

    def finish(self, processes: list[Any]) -> None:
        """Wait until they end, and keep their state."""
        self.pipe.state = self.pipe.finish(processes).ok().state
