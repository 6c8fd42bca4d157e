"""The MeltanoLabs tap and target, in a separate Meltano project."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import yaml
from tests.conftest import REPOSITORY

from bench.peers.base import Peer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.measure import Measured

_QUIET: dict[str, Any] = {"capture_output": True, "text": True}
_STATE = "dev:tap-postgres-to-target-postgres"
_CONNECTION = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}


class Stock(Peer):
    """`meltano run` with the plugins that most projects use."""

    name = "MeltanoLabs"
    settings = (
        "meltanolabs-tap-postgres 0.10.0, meltanolabs-target-postgres 0.8.1 with use_copy and batch_size_rows 100,000, "
        "INCREMENTAL, under `meltano run`"
    )
    schema = "raw_stock"
    once = True

    @property
    def _meltano(self) -> str:
        return str(REPOSITORY / ".venv" / "bin" / "meltano")

    def prepare(self) -> None:
        """Create the project and install its plugins."""
        self._root = self.setting.work / "stock"
        self._root.mkdir(exist_ok=True)
        content = yaml.safe_dump(self._project(), sort_keys=False)
        (self._root / "meltano.yml").write_text(content)
        installed = self._root / ".meltano" / "loaders" / "target-postgres" / "venv" / "bin" / "target-postgres"
        if not installed.exists():
            environment = {**self.environment(), "UV_COMPILE_BYTECODE": "1"}
            subprocess.run([self._meltano, "install"], cwd=self._root, env=environment, check=True, **_QUIET)

    def _project(self) -> dict[str, object]:
        incremental = {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
        tables = self.setting.dataset.keys
        sides = {}
        for side in ("source", "warehouse"):
            parts = self.setting.parts(side)
            sides[side] = {ours: parts[theirs] for theirs, ours in _CONNECTION.items()}
        tap = {**sides["source"], "filter_schemas": ["public"]}
        target = {
            **sides["warehouse"],
            "default_target_schema": self.schema,
            "use_copy": True,
            "batch_size_rows": 100_000,
        }
        return {
            "project_id": "bench",
            "send_anonymous_usage_stats": False,
            "cli": {"disable_version_check": True},
            "default_environment": "dev",
            "environments": [{"name": "dev"}],
            "plugins": {
                "extractors": [
                    {
                        **_plugin("tap-postgres", "meltanolabs-tap-postgres==0.10.0", tap),
                        "capabilities": ["catalog", "discover", "state"],
                        "select": [f"public-{table}.*" for table in tables],
                        "metadata": {f"public-{table}": incremental for table in tables},
                    }
                ],
                "loaders": [_plugin("target-postgres", "meltanolabs-target-postgres==0.8.1", target)],
            },
        }

    def forget(self) -> None:
        """Clear Meltano's state."""
        command = [self._meltano, "state", "clear", "--force", _STATE]
        subprocess.run(command, cwd=self._root, env=self.environment(), check=False, capture_output=True)

    def load(self) -> Measured:
        """Run the pipeline."""
        command = [self._meltano, "run", "--no-install", "--force", "tap-postgres", "target-postgres"]
        return self.run([command], cwd=self._root, variables={"PGTZ": "UTC"})


def _plugin(name: str, package: str, values: Mapping[str, object]) -> dict[str, object]:
    kinds = {bool: "boolean", int: "integer", list: "array"}
    settings = [
        {"name": key, "value": value, **({"kind": kinds[type(value)]} if type(value) in kinds else {})}
        for key, value in values.items()
    ]
    next(setting for setting in settings if setting["name"] == "port").update(kind="integer")
    return {
        "name": name,
        "namespace": name.replace("-", "_"),
        "executable": name,
        "pip_url": package,
        "settings": settings,
    }
