"""Connections to either side, and what to say when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
from psycopg import conninfo

from tidemark.errors import UnreachableError

if TYPE_CHECKING:
    from tidemark.settings import Side

_TIMEOUT_S = 10


def url(side: Side, *, with_password: bool = True) -> str:
    """Return a libpq URL of `side`."""
    password = f":{quote(side.password.get_secret_value(), safe='')}" if side.password and with_password else ""
    query = ""
    if side.ssl_enable:
        query = f"?sslmode={side.ssl_mode}"
        if side.ssl_certificate_authority:
            query += f"&sslrootcert={quote(side.ssl_certificate_authority, safe='')}"
    host = f"[{side.address}]" if ":" in side.address else quote(side.address, safe="")
    return (
        f"postgresql://{quote(side.user, safe='')}{password}@{host}:{side.port}/{quote(side.database, safe='')}{query}"
    )


def connect(side: Side, *, database: str | None = None, autocommit: bool = True) -> psycopg.Connection[Any]:
    """Connect to `side` in UTC, or to another `database` on its server.

    Raises:
        UnreachableError: it can't be reached, or refuses this user.
    """
    parameters: dict[str, Any] = {
        "connect_timeout": _TIMEOUT_S,
        "application_name": "tidemark",
        # psycopg reads no other date style, and a database may have one set
        "options": "-c TimeZone=UTC -c DateStyle=ISO -c client_encoding=UTF8",
    }
    if database:
        parameters["dbname"] = database
    try:
        return psycopg.connect(conninfo.make_conninfo(url(side), **parameters), autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise UnreachableError(_explain(side, error)) from error


def _explain(side: Side, error: psycopg.OperationalError) -> str:
    """Say in one line what is wrong and which variable mends it."""
    # libpq's text runs over several lines, the reason first
    reason = str(error).strip().splitlines()[0]
    for noise in ("connection failed: ", "FATAL:  ", "FATAL: "):
        reason = reason.replace(noise, "")
    lower = str(error).lower()
    variables = f"{side.prefix}_HOST and {side.prefix}_PORT"
    if "ssl" in lower or "certificate" in lower:
        variables = f"{side.prefix}_SSL_ENABLE, _SSL_MODE and _SSL_CERTIFICATE_AUTHORITY"
    elif "password" in lower:
        variables = f"{side.prefix}_USER and {side.prefix}_PASSWORD"
    elif "database" in lower and "does not exist" in lower:
        variables = f"{side.prefix}_DATABASE"
    elif "role" in lower and "does not exist" in lower:
        variables = f"{side.prefix}_USER"
    advice = f"check {variables} in the environment or .env"
    if side.embedded:
        if "password" in lower:
            advice = (
                f"its data keeps the password it was made with: put that back as {side.prefix}_PASSWORD in .env, "
                "or start afresh with `tidemark reset`"
            )
        else:
            advice = "start it with `tidemark up`"
    return f"Cannot connect to the {side} as {side.user!r}: {reason}; {advice}."
