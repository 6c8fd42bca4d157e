"""dlt, sling and pgcopydb, each with the settings that its documentation recommends for speed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import yaml
from tests.servers import INSTALLATIONS

from bench.peers.base import Peer
from bench.venvs import venv

if TYPE_CHECKING:
    from bench.measure import Measured


class Dlt(Peer):
    """dlt's sql_database source."""

    backend = "pyarrow"
    packages: tuple[str, ...] = (
        "dlt[postgres,sql_database]==1.31.0",
        "pyarrow==22.0.0",
        "psycopg2-binary==2.9.12",
        "psycopg[binary]==3.2.10",
    )
    once = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name with the backend."""
        return f"dlt, {self.backend}"

    @property
    def schema(self) -> str:  # type: ignore[override]
        """A separate schema for each backend."""
        return f"raw_dlt_{self.backend}"

    @property
    def settings(self) -> str:  # type: ignore[override]
        """Versions and settings."""
        return (
            f"{self.packages[0]}, sql_database with backend {self.backend}, chunks of 200,000 rows, merge on the "
            "primary key, incremental on updated_at, files loaded as CSV by COPY"
        )

    def prepare(self) -> None:
        """Install dlt."""
        self._python = venv(self.setting.work, f"dlt-{self.backend}", self.packages)
        self._pipelines = self.setting.work / f"dlt-{self.backend}-pipelines"

    def forget(self) -> None:
        """Delete dlt's state."""
        shutil.rmtree(self._pipelines, ignore_errors=True)

    def load(self) -> Measured:
        """Run the pipeline."""
        what = {
            "source": self.setting.url("source"),
            "warehouse": self.setting.url("warehouse"),
            "keys": self.setting.dataset.keys,
            "schema": self.schema,
            "backend": self.backend,
            "pipelines": str(self._pipelines),
        }
        command = [str(self._python), str(Path(__file__).with_name("dlt_load.py")), json.dumps(what)]
        return self.run([command], variables={"RUNTIME__DLTHUB_TELEMETRY": "false"})


class DltConnectorx(Dlt):
    """The same, reading with connectorx."""

    backend = "connectorx"
    packages = (*Dlt.packages, "connectorx==0.4.4")


class Sling(Peer):
    """sling's replications."""

    name = "sling"
    settings = "sling 1.4.11, replication in incremental mode with primary and update key, 2 streams at once"
    schema = "raw_sling"

    def prepare(self) -> None:
        """Install sling, and write the replication."""
        python = venv(self.setting.work, "sling", ["sling-linux-amd64==1.4.11"])
        # the binary itself, because its Python wrapper only adds start-up time
        (self._sling,) = python.parent.parent.glob("lib/*/site-packages/sling_linux_amd64/bin/sling*")
        self._sling.chmod(0o755)
        self._replication = self.setting.work / "sling.yaml"
        streams = {
            f"public.{table}": {"primary_key": key, "update_key": "updated_at"}
            for table, key in self.setting.dataset.keys.items()
        }
        defaults = {"mode": "incremental", "object": f"{self.schema}.{{stream_table}}"}
        content = {"source": "BENCH_SOURCE", "target": "BENCH_WAREHOUSE", "defaults": defaults, "streams": streams}
        self._replication.write_text(yaml.safe_dump(content))

    def load(self) -> Measured:
        """Run the replication."""
        variables = {
            "BENCH_SOURCE": f"{self.setting.url('source')}?sslmode=disable",
            "BENCH_WAREHOUSE": f"{self.setting.url('warehouse')}?sslmode=disable",
            "SLING_THREADS": "2",
            "SLING_DISABLE_TELEMETRY": "TRUE",
        }
        command = [str(self._sling), "run", "-r", str(self._replication)]
        return self.run([command], variables=variables)


class Pgcopydb(Peer):
    """A copy of the whole database."""

    name = "pgcopydb"
    settings = "`pgcopydb clone --table-jobs 2 --index-jobs 2`: all indexes and constraints are made too"
    schema = "public"
    database = "pgcopydb_bench"
    incremental = False

    def prepare(self) -> None:
        """Check that it is installed.

        Raises:
            FileNotFoundError: it is not installed.
        """
        if shutil.which("pgcopydb") is None:
            raise FileNotFoundError("pgcopydb is not installed")

    def environment(self) -> dict[str, str]:
        """Return an environment with the servers' own pg_dump, because an older one refuses them."""
        common = super().environment()
        return {**common, "PATH": f"{INSTALLATIONS['embedded']}:{common['PATH']}"}

    def forget(self) -> None:
        """Create an empty database."""
        with psycopg.connect(self.setting.url("warehouse"), autocommit=True) as connection:
            connection.execute(f"drop database if exists {self.database} with (force)")
            connection.execute(f"create database {self.database}")

    def load(self) -> Measured:
        """Copy the database."""
        warehouse = self.setting.url("warehouse").rpartition("/")[0] + f"/{self.database}"
        command = ["pgcopydb", "clone", "--source", self.setting.url("source"), "--target", warehouse, "--restart"]
        jobs = [
            "--table-jobs",
            "2",
            "--index-jobs",
            "2",
            "--no-owner",
            "--no-acl",
            "--dir",
            str(self.setting.work / "pgc"),
        ]
        return self.run([[*command, *jobs]])
