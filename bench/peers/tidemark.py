"""This project, run as a user runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.measure import Measured

_OF_THE_SHOP = "order_items"
_STATE = "dev:tap-postgres-to-target-postgres"


class Tidemark(Peer):
    """`meltano run`, including its start-up."""

    name = "tidemark"
    settings = "`meltano run tap-postgres target-postgres`, settings as in this repository"
    schema = "raw"

    def environment(self) -> dict[str, str]:
        """Return the environment with both connections and the data set's streams."""
        own = {"MELTANO_RUN_FORCE": "1"}
        for prefix, side in (("TAP_POSTGRES", "source"), ("TARGET_POSTGRES", "warehouse")):
            parts = self.setting.parts(side)
            names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "DATABASE": "dbname"}
            own |= {f"{prefix}_{name}": parts[part] for name, part in names.items()}
        own["TAP_POSTGRES__SELECT"] = json.dumps([f"public-{table}.*" for table in self.setting.dataset.keys])
        incremental = {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
        own["TAP_POSTGRES__METADATA"] = json.dumps({"*": incremental})
        return {**super().environment(), **own}

    def forget(self) -> None:
        """Clear Meltano's state."""
        self.setting.checkout.run("meltano", "state", "clear", "--force", _STATE)

    def load(self) -> Measured:
        """Run the pipeline."""
        root = self.setting.checkout.root
        command = [str(root / ".venv/bin/meltano"), "run", "--no-install", "tap-postgres", "target-postgres"]
        return self.run([command], cwd=root, disk=root / ".tidemark" / "chunks")

    def more(self) -> Mapping[str, Callable[[], Measured]]:
        """Return the comparison of both sides, and the builds of the demo shop's marts."""
        if _OF_THE_SHOP not in self.setting.dataset.keys:
            return {}
        types = [argument for kind in ("seed", "model", "snapshot") for argument in ("--resource-type", kind)]
        build = ("meltano", "invoke", "dbt-postgres", "build", *types)
        return {
            "reconcile": lambda: self._command("tidemark", "reconcile"),
            "marts": lambda: self._command(*build, "--full-refresh"),
            "marts, 1 % changed": lambda: self._command(*build),
        }

    def _command(self, program: str, *arguments: str) -> Measured:
        root = self.setting.checkout.root
        return self.run([[str(root / ".venv" / "bin" / program), *arguments]], cwd=root)
