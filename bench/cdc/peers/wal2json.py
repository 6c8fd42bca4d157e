"""What tools need that read the log through wal2json."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from bench.cdc.servers import Servers


def needs_wal2json(servers: Servers) -> None:
    """Check that the source has the output plugin.

    Raises:
        FileNotFoundError: it does not.
    """
    with servers.source() as connection:
        try:
            connection.execute("select pg_create_logical_replication_slot('trial', 'wal2json', true)")
        except psycopg.errors.UndefinedFile:
            version = connection.info.server_version // 10000
            raise FileNotFoundError(
                f"wal2json is not installed for PostgreSQL {version} (Debian: postgresql-{version}-wal2json)"
            ) from None
