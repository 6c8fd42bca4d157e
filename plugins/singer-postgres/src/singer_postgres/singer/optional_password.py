"""Makes the password optional: libpq has other ways to find one (PGPASSFILE, PGPASSWORD, a certificate).

The MeltanoLabs plugins require a password, with an assertion.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SettingInvalidError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator


def without_password(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with an optional password. Mark it and the URL, which can hold one, as secret."""
    secret = {name: {**properties[name], "secret": True} for name in ("password", "sqlalchemy_url")}
    return {**properties, **secret, "password": {**secret["password"], "default": ""}}


@contextmanager
def settings_reported() -> Iterator[None]:
    """Turn the MeltanoLabs plugins' assertions about settings into our errors."""
    try:
        yield
    except KeyError as error:
        msg = f"The setting {error} is missing; set it, or sqlalchemy_url."
        raise SettingInvalidError(msg) from error
    except AssertionError as error:
        msg = f"{one_line(error).rstrip('.')}."
        raise SettingInvalidError(msg) from error
