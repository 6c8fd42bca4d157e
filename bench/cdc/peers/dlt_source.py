"""dlt's pg_replication, whose code `dlt init` copies from GitHub."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bench.cdc.peers.base import PUBLICATION, Peer
from bench.venvs import venv

# what dlt adds to each row; of rows that were there before, a table takes only the default
_COLUMNS = """
    id bigint, order_id bigint, product_id bigint, quantity bigint, unit_price numeric(12, 2),
    discount numeric(12, 2), created_at timestamptz, updated_at timestamptz, note varchar, lsn bigint,
    deleted_ts timestamptz, _dlt_load_id varchar not null default '0',
    _dlt_id varchar not null default gen_random_uuid()::varchar
"""


class Dlt(Peer):
    """The verified source, in a pipeline of its own."""

    name = "dlt"
    settings = (
        "dlt 1.31.0, `dlt init pg_replication`, replication_resource with target_batch_size 100,000, "
        "files loaded as CSV by COPY"
    )
    database = "peer_dlt"

    def prepare(self) -> None:
        """Install dlt, and copy the source. DLT_SOURCES names a clone of dlt's verified sources, instead of GitHub."""
        packages = ["dlt[postgres]==1.31.0", "psycopg2-binary==2.9.12", "sqlalchemy==2.0.44"]
        self._python = venv(self.work, "dlt-cdc", packages)
        location = ["--location", os.environ["DLT_SOURCES"]] if os.environ.get("DLT_SOURCES") else []
        command = [self._python.with_name("dlt"), "--non-interactive", "init", "pg_replication", "postgres"]
        self.run([*command, *location], cwd=self.directory)

    def begin(self) -> None:
        """Copy the table into the shape that dlt makes."""
        self.slot("pgoutput")
        self.copy("raw.items", _COLUMNS)

    def start(self) -> None:
        """Start the pipeline."""
        what = {
            "source": self.uri("source"),
            "warehouse": self.uri("warehouse"),
            "slot": self.database,
            "publication": PUBLICATION,
            "pipelines": str(self.directory / "pipelines"),
        }
        script = Path(__file__).with_name("dlt_follow.py")
        environment = {"RUNTIME__DLTHUB_TELEMETRY": "false", "PYTHONPATH": str(self.directory)}
        self.pipe([self._python, script, json.dumps(what)], env=environment)
