"""Runs dbt for a project and its peers, and reads from dbt's results what each model took."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests import programs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.integration.checkout import Checkout

# what dbt also reports, such as hooks, is part of the whole
_BUILT = ("model", "snapshot", "seed")
# what autovacuum would do with its default settings
_DUE = """
    select format('%I.%I', schemaname, pg_class.relname)
    from pg_stat_user_tables inner join pg_class on oid = relid
    where
        relkind in ('r', 'm')
        and (
            n_dead_tup > 50 + 0.2 * greatest(reltuples, 0)
            or n_mod_since_analyze > 50 + 0.1 * greatest(reltuples, 0)
            or n_ins_since_vacuum > 1000 + 0.2 * greatest(reltuples, 0)
        )
"""


@dataclass(frozen=True)
class Build:
    """One build.

    Attributes:
        wall_s: seconds of the command.
        dbt_s: seconds that dbt reports, without its start: hooks and all models, four at a time.
        wal_bytes: WAL that the warehouse wrote meanwhile.
        models: each model's seconds and written rows; rows are null if PostgreSQL does not count them.
    """

    wall_s: float
    dbt_s: float
    wal_bytes: int
    models: dict[str, tuple[float, int | None]]


@dataclass(frozen=True)
class Builder:
    """A dbt project with a way to build its marts."""

    name: str
    checkout: Checkout
    project: str
    schemas: tuple[str, ...]
    program: str = "dbt"
    arguments: tuple[str, ...] = ("run",)
    prefix: str = ""

    @property
    def marts(self) -> str:
        """The schema of its marts."""
        return f"{self.prefix}marts"

    def drop(self) -> None:
        """Drop what it built, so that the next build is a first one."""
        with self.checkout.connect("warehouse") as connection:
            for schema in self.schemas:
                connection.execute(f"drop schema if exists {schema} cascade".encode())

    def build(self) -> Build:
        """Build, and leave nothing for autovacuum to do during the next measurement."""
        target = self.checkout.root / ".meltano" / "dbt" / f"bench-{self.marts}"
        environment = {
            **self.checkout.dbt_environment(),
            "DBT_PROJECT_DIR": str(self.checkout.root / self.project),
            "DBT_TARGET_PATH": str(target),
            "DBT_SCHEMA_PREFIX": self.prefix,
        }
        with self.checkout.connect("warehouse") as connection:
            # otherwise the first build after a checkpoint would write more WAL than the next
            connection.execute("checkpoint")
        before = self._lsn()
        began = time.monotonic()
        done = subprocess.run(
            [str(programs.DBT.with_name(self.program)), *self.arguments],
            cwd=self.checkout.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        wall = time.monotonic() - began
        if done.returncode:
            sys.exit(f"error: {self.name}: {done.stdout}")
        (wal,) = self.checkout.rows("warehouse", f"select (pg_current_wal_insert_lsn() - '{before}')::bigint")[0]
        reported = json.loads((target / "run_results.json").read_text())
        settle(self.checkout)
        models = {
            result["unique_id"].split(".")[2]: (result["execution_time"], _rows(result["adapter_response"]))
            for result in reported["results"]
            if result["unique_id"].startswith(_BUILT)
        }
        return Build(wall, reported["elapsed_time"], wal, models)

    def _lsn(self) -> str:
        return str(self.checkout.rows("warehouse", "select pg_current_wal_insert_lsn()::text")[0][0])


def builders(checkout: Checkout, peers: Iterable[str]) -> list[Builder]:
    """Return this project, and its peers by their materializations."""
    types = tuple(word for kind in _BUILT for word in ("--resource-type", kind))
    own = Builder(
        name="Tidemark",
        checkout=checkout,
        project="transform",
        schemas=("marts", "intermediate", "staging"),
        program="tidemark-dbt",
        arguments=("build", *types),
    )
    others = []
    for materialized in peers:
        prefix = f"{materialized.replace('+', '_')}_"
        others.append(
            Builder(
                name=materialized,
                checkout=checkout,
                project="bench/peers/dbt",
                schemas=(f"{prefix}marts",),
                arguments=("run", "--vars", json.dumps({"materialized": materialized})),
                prefix=prefix,
            )
        )
    return [own, *others]


def settle(checkout: Checkout) -> None:
    """Vacuum and analyze the tables that are due for it."""
    with checkout.connect("warehouse") as connection:
        for (table,) in connection.execute(_DUE).fetchall():
            connection.execute(f"vacuum analyze {table}".encode())


def _rows(response: dict[str, object]) -> int | None:
    rows = response.get("rows_affected")
    return rows if isinstance(rows, int) and rows >= 0 else None
