"""Fills a warehouse with every kind of run record, through real runs, and keeps its servers until standard input ends.

It is a separate program for the project's environment: Airflow's, in which the tests run, has nothing that moves rows.
"""

from __future__ import annotations

import json
import sys

from dotenv import dotenv_values

from tests.integration.stages import make_checkout
from tests.run_records import fill


def main() -> None:
    for project in make_checkout(stage="built"):
        fill(project)
        env = {**project.env, **dotenv_values(project.root / ".env")}
        said = {
            "variables": {name: env[name] for name in ("TARGET_POSTGRES_PORT", "TIDEMARK_MONITOR_PASSWORD")},
            "owner": project.tidemark("dsn", "warehouse").strip(),
        }
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
