"""The MeltanoLabs tap's LOG_BASED, which reads wal2json, piped into their target."""

from __future__ import annotations

import json
from typing import Any

from bench.cdc.peers.base import Peer
from bench.cdc.peers.wal2json import needs_wal2json
from bench.venvs import venv

_STREAM = "public-items"
_COLUMNS = """
    id bigint, order_id bigint, product_id bigint, quantity bigint, unit_price numeric, discount numeric,
    created_at timestamptz, updated_at timestamptz, note text, _sdc_deleted_at text, _sdc_lsn bigint
"""
_IDLE_S = 5


class Stock(Peer):
    """Tap and target without Meltano."""

    name = "MeltanoLabs"
    settings = (
        "meltanolabs-tap-postgres 0.10.0, LOG_BASED with wal2json and log_based_single_connection, "
        f"replication_idle_exit_seconds {_IDLE_S} instead of 60, which its seconds contain; "
        "meltanolabs-target-postgres 0.8.1 with use_copy and batch_size_rows 100,000; without Meltano"
    )
    database = "peer_stock"

    def prepare(self) -> None:
        """Install tap and target."""
        needs_wal2json(self.servers)
        self._tap, self._target = (
            venv(self.work, f"stock-{name}", [f"meltanolabs-{name}=={version}"]).with_name(name)
            for name, version in (("tap-postgres", "0.10.0"), ("target-postgres", "0.8.1"))
        )

    def begin(self) -> None:
        """Copy the table into the shape that the target makes, and begin at the slot."""
        position = self.slot("wal2json")
        self.copy("raw.items", _COLUMNS)
        names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}
        sides = {side: {names[k]: v for k, v in self.parts(side).items()} for side in ("source", "warehouse")}
        for side in sides.values():
            side["port"] = int(side["port"])
        reading = {
            "filter_schemas": ["public"],
            "replication_slot_name": self.database,
            "log_based_single_connection": True,
            "replication_idle_exit_seconds": _IDLE_S,
        }
        writing = {"default_target_schema": "raw", "use_copy": True, "batch_size_rows": 100_000}
        self._write("tap.json", {**sides["source"], **reading})
        self._write("target.json", {**sides["warehouse"], **writing})
        bookmark = {"replication_key": "_sdc_lsn", "replication_key_value": position}
        self._write("state.json", {"bookmarks": {_STREAM: bookmark}})
        self._select()

    def _select(self) -> None:
        found = self.directory / "found.json"
        with found.open("wb") as out:
            self.run([self._tap, "--config", self.directory / "tap.json", "--discover"], out=out)
        catalog = json.loads(found.read_text())
        for stream in catalog["streams"]:
            stream["replication_method"] = "LOG_BASED"
            for entry in stream["metadata"]:
                if not entry["breadcrumb"]:
                    selected = stream["tap_stream_id"] == _STREAM
                    entry["metadata"] |= {"selected": selected, "replication-method": "LOG_BASED"}
        self._write("catalog.json", catalog)

    def start(self) -> None:
        """Start tap and target."""
        files = {name: self.directory / f"{name}.json" for name in ("tap", "target", "catalog", "state")}
        tap = [self._tap, "--config", files["tap"], "--catalog", files["catalog"], "--state", files["state"]]
        with (self.directory / "states").open("wb") as states:
            self.pipe(tap, [self._target, "--config", files["target"]], env={"PGTZ": "UTC"}, out=states)

    def finish(self) -> None:
        """Keep the last state."""
        super().finish()
        if states := (self.directory / "states").read_text().splitlines():
            (self.directory / "state.json").write_text(states[-1])

    def _write(self, name: str, content: dict[str, Any]) -> None:
        (self.directory / name).write_text(json.dumps(content))
