"""Checks each server as a whole: version, encoding, clock, and poolers that keep no sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core import poolers
from tidemark.inspect.check.finding import Finding, Level, statement
from tidemark.project.connections import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from tidemark.project.database_settings import DatabaseSettings, SideName

_OLDEST, _TESTED = 14, range(15, 19)
_CLOCKS_APART_S = 5.0
_ROUNDS = 3


@dataclass(frozen=True)
class ServerFacts:
    """What a server reports about itself.

    Attributes:
        version: the major version.
        read_only: sessions begin read-only, for another reason than that it is a standby.
        clock_ahead_s: how far its clock is ahead of this machine's; negative if it is behind.
        pooled: what a pooler does with sessions, if it doesn't keep them; None without such a pooler.
    """

    version: int
    full_version: str
    encoding: str
    standby: bool
    read_only: bool
    role: str
    database: str
    clock_ahead_s: float
    pooled: str | None


def read(side: DatabaseSettings, connection: psycopg.Connection[Any]) -> ServerFacts:
    """Query the server of `connection`, which is in autocommit. Behind a pooler, this opens a second connection."""
    row = connection.execute(
        "select current_setting('server_version_num')::int / 10000, "
        "split_part(current_setting('server_version'), ' ', 1), "
        "current_setting('server_encoding'), pg_catalog.pg_is_in_recovery(), "
        "current_setting('default_transaction_read_only') = 'on', current_user::text, current_database()::text"
    ).fetchone()
    assert row
    facts = (*row, _clock_ahead_s(connection), poolers.fault(connection, lambda: connect(side, any_pool=True)))
    return ServerFacts(*facts)


def _clock_ahead_s(connection: psycopg.Connection[Any]) -> float:
    """Return how far the server's clock is ahead of ours, from the measurement with the shortest round trip."""
    measured = []
    for _ in range(_ROUNDS):
        sent, began = time.time(), time.monotonic()
        row = connection.execute("select extract(epoch from pg_catalog.clock_timestamp())::float8").fetchone()
        took = time.monotonic() - began
        assert row
        measured.append((took, row[0] - sent - took / 2))
    return float(min(measured)[1])


def findings(side: SideName, server: ServerFacts) -> list[Finding]:
    """Return findings about a server as a whole, or one line that says that it is in order."""
    found = [*_version(side, server), *_encoding(side, server), *_sessions(side, server), *_writable(side, server)]
    if not found:
        what = f"PostgreSQL {server.full_version}, {server.encoding}, as {server.role} in database {server.database}"
        return [Finding(side, Level.ok, what)]
    return found


def _version(side: SideName, server: ServerFacts) -> Iterator[Finding]:
    tested = f"{_TESTED.start} to {_TESTED.stop - 1} are tested"
    if server.version < _OLDEST:
        what = f"PostgreSQL {server.full_version} is too old; {tested}: upgrade it"
        yield Finding(side, Level.error, what)
    elif server.version not in _TESTED:
        yield Finding(side, Level.note, f"PostgreSQL {server.full_version}: {tested}")


def _encoding(side: SideName, server: ServerFacts) -> Iterator[Finding]:
    if server.encoding == "UTF8":
        return
    if side == "warehouse":
        name = f"{server.database}_utf8"
        fix = statement("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'", name=name)
        what = f"its encoding is {server.encoding}, and rows arrive as UTF8; then set TARGET_POSTGRES_DATABASE={name}"
        yield Finding(side, Level.error, what, (fix,))
    elif server.encoding == "SQL_ASCII":
        what = "its encoding is SQL_ASCII, so text may be any bytes: text that is not UTF8 will stop its stream"
        yield Finding(side, Level.warning, what)
    else:
        yield Finding(side, Level.note, f"its encoding is {server.encoding}: the server converts text to UTF8")


def _sessions(side: SideName, server: ServerFacts) -> Iterator[Finding]:
    if server.pooled:
        what = (
            f"a pooler {server.pooled}, and snapshots, temporary tables and locks need one that lasts: connect to the "
            "server itself, or to a pool with pool_mode = session"
        )
        yield Finding(side, Level.error, what)


def _writable(side: SideName, server: ServerFacts) -> Iterator[Finding]:
    if side == "source":
        return
    if server.standby:
        yield Finding(side, Level.error, "it is a standby, which is read only; connect to its primary")
    elif server.read_only:
        fix = statement(
            "ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = off",
            role=server.role,
            database=server.database,
        )
        yield Finding(side, Level.error, f"transactions of {server.role} are read only", (fix,))


def unseen(variables: Sequence[str]) -> list[Finding]:
    """Return the finding about settings of the target that dbt can't see."""
    if not variables:
        return []
    what = (
        f"{', '.join(variables)}: set in YAML or in Meltano's database, which neither dbt nor Airflow's page of streams"
        " reads. Runs of `tidemark` pass it on, but a bare `meltano` and `make dbt` don't, so put it into .env too"
    )
    return [Finding("warehouse", Level.warning, what)]


def clocks(source: ServerFacts, warehouse: ServerFacts) -> list[Finding]:
    """Return findings about clocks that are too far apart."""
    sides: dict[SideName, ServerFacts] = {"source": source, "warehouse": warehouse}
    found = [
        Finding(side, Level.warning, f"its clock is {_apart(server.clock_ahead_s)} this machine's; set both by NTP")
        for side, server in sides.items()
        if abs(server.clock_ahead_s) > _CLOCKS_APART_S
    ]
    ahead = source.clock_ahead_s - warehouse.clock_ahead_s
    if abs(ahead) > _CLOCKS_APART_S:
        what = f"the source's clock is {_apart(ahead)} the warehouse's, so their timestamps can't be compared; set both"
        found.append(Finding("both", Level.warning, f"{what} by NTP"))
    return found


def _apart(ahead_s: float) -> str:
    return f"{abs(ahead_s):,.1f} s {'ahead of' if ahead_s > 0 else 'behind'}"
