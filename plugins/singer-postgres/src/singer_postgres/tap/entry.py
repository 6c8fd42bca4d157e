"""The command `tap-postgres`."""

from __future__ import annotations

import sys

from singer_postgres import lazy

lazy.install()

import psycopg2  # noqa: E402

from singer_postgres.command import run  # noqa: E402
from singer_postgres.errors import SingerPostgresError  # noqa: E402
from singer_postgres.tap.tap import TapPostgres  # noqa: E402


def main() -> None:
    """Run the tap."""
    sys.exit(run(TapPostgres, expected=(SingerPostgresError, psycopg2.Error)))
