"""The command `tap-postgres`."""

from __future__ import annotations

import sys

import psycopg2

from singer_postgres import lazy
from singer_postgres.errors import SingerPostgresError


def main() -> None:
    """Run the tap."""
    # imported when it is known what is wanted: an idle run is mostly imports
    from singer_postgres.tap import quick  # noqa: PLC0415

    try:
        found = quick.discover(sys.argv[1:])
    except (psycopg2.Error, SingerPostgresError):
        # to be met again below, where errors are told
        found = None
    if found is not None:
        sys.stdout.write(found + "\n")
        return
    lazy.install()
    from singer_postgres.command import run  # noqa: PLC0415
    from singer_postgres.tap.tap import TapPostgres  # noqa: PLC0415

    sys.exit(run(TapPostgres, expected=(SingerPostgresError, psycopg2.Error)))
