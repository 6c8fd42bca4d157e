"""`pgcopydb follow`, which turns wal2json's messages into files of SQL, and runs these."""

from __future__ import annotations

import shutil

from bench.cdc.peers.base import Peer
from bench.cdc.peers.wal2json import needs_wal2json


class Pgcopydb(Peer):
    """Follows up to the end of the log as of its start."""

    name = "pgcopydb"
    settings = "pgcopydb 0.10 of Debian 12, `follow` to the end of the log, wal2json; it has no settings for speed"
    database = "peer_pgcopydb"
    schema = "public"

    def prepare(self) -> None:
        """Check that it is installed."""
        if shutil.which("pgcopydb") is None:
            raise FileNotFoundError("pgcopydb is not installed (Debian: pgcopydb)")
        needs_wal2json(self.servers)

    def begin(self) -> None:
        """Copy the table, and make a slot and a replication origin."""
        self.copy()
        with self.servers.source() as connection, connection.transaction():
            row = connection.execute("select pg_export_snapshot()").fetchone()
            assert row
            self.run(["pgcopydb", "stream", "setup", *self._sides(), "--snapshot", row[0]])
        self.run(["pgcopydb", "stream", "sentinel", "set", "apply", "--source", self.uri("source")])

    def start(self) -> None:
        """Follow to the end of the backlog."""
        self.pipe(["pgcopydb", "follow", *self._sides(), "--resume", "--not-consistent", "--endpos", self.end])

    def finish(self) -> None:
        """Stop it, because it may wait for a further transaction before it ends."""
        self.stop()

    def _sides(self) -> list[str]:
        names = ["--slot-name", self.database, "--origin", self.database, "--dir", str(self.directory / "files")]
        return ["--source", self.uri("source"), "--target", self.uri("warehouse"), *names]
