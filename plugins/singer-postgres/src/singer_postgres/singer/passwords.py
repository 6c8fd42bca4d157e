"""Passwords that are not among the settings: libpq has ways of its own (PGPASSFILE, PGPASSWORD, a certificate).

The MeltanoLabs plugins insist on one, with an assertion.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SingerPostgresError

if TYPE_CHECKING:
    from collections.abc import Iterator


def without_password(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with a password that need not be given."""
    return {**properties, "password": {**properties["password"], "default": ""}}


@contextmanager
def settings_reported() -> Iterator[None]:
    """Tell what the MeltanoLabs plugins assert of their settings as an error of ours."""
    try:
        yield
    except KeyError as error:
        msg = f"The setting {error} is missing; set it, or sqlalchemy_url."
        raise SingerPostgresError(msg) from error
    except AssertionError as error:
        msg = f"{' '.join(str(error).split()).rstrip('.')}."
        raise SingerPostgresError(msg) from error
