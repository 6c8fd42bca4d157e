"""The command `target-postgres`."""

from __future__ import annotations

import sys

from singer_postgres.singer import lazy_imports

lazy_imports.install()

import psycopg  # noqa: E402
from singer_sdk.exceptions import SyncError  # noqa: E402

from singer_postgres.core.errors import SingerPostgresError  # noqa: E402
from singer_postgres.singer import whole_messages  # noqa: E402
from singer_postgres.singer.command import run  # noqa: E402
from singer_postgres.target.target import TargetPostgres  # noqa: E402


def main() -> None:
    """Run the target."""
    lazy_imports.finish()
    whole_messages.buffer_output()
    sys.exit(run(TargetPostgres, side="warehouse", expected=(SingerPostgresError, psycopg.Error, SyncError)))
