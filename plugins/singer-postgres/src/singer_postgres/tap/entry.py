"""The command `tap-postgres`."""

from __future__ import annotations

import sys

import psycopg2

from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.singer import lazy_imports, whole_messages


def main() -> None:
    """Run the tap."""
    whole_messages.buffer_output()
    # imported late, because an idle run is mostly imports
    from singer_postgres.tap import fast_discovery  # noqa: PLC0415

    try:
        found = fast_discovery.discover(sys.argv[1:])
    except (psycopg2.Error, SingerPostgresError):
        # it occurs again below, where errors are logged
        found = None
    if found is not None:
        sys.stdout.write(found + "\n")
        return
    lazy_imports.install()
    from singer_postgres.singer.command import run  # noqa: PLC0415
    from singer_postgres.tap.tap import TapPostgres  # noqa: PLC0415

    lazy_imports.finish()
    sys.exit(run(TapPostgres, side="source", expected=(SingerPostgresError, psycopg2.Error)))
