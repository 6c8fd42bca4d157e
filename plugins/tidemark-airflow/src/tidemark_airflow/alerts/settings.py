"""Settings of alerts: the variables TIDEMARK_ALERTS_…, from the environment only.

Each channel's settings are read separately, so that a mistake in one does not disable the others.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, TypeVar

import httpx
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "TIDEMARK_ALERTS_"
_PORTS = {"none": 25, "starttls": 587, "ssl": 465}


class SettingsError(Exception):
    """Says which variables are wrong and which values are valid, in one line without any secret."""


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, hide_input_in_errors=True)


class Content(_Settings):
    """What is reported (retries too, or only failures), by Airflow or Alertmanager, and where the runbook is."""

    by: Literal["airflow", "alertmanager"] = "airflow"
    on_retry: bool = False
    runbook_url: str = "docs/runbook.md"


class WebhookSettings(_Settings):
    """A URL that accepts Slack's JSON. It is a secret: whoever knows it can post there."""

    webhook_url: SecretStr | None = None

    @field_validator("webhook_url")
    @classmethod
    def _is_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value:
            try:
                url = httpx.URL(value.get_secret_value())
            except httpx.InvalidURL:
                raise ValueError("it is not a URL") from None
            if url.scheme not in {"http", "https"} or not url.host:
                raise ValueError("it must begin with https:// and a host")
        return value


class MailSettings(_Settings):
    """Recipients, and their mail server."""

    email_to: Annotated[tuple[str, ...], NoDecode] = ()
    email_from: str | None = None
    smtp_host: str | None = None
    smtp_port: Annotated[int | None, Field(gt=0, lt=65536)] = None
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    smtp_security: Literal["none", "starttls", "ssl"] = "starttls"

    @property
    def port(self) -> int:
        """The port that is set, or else the usual one for this kind of connection."""
        return self.smtp_port or _PORTS[self.smtp_security]

    @field_validator("email_to", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, (one.strip() for one in value.split(",")))) if isinstance(value, str) else value

    @field_validator("email_to", "email_from")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        for address in [value] if isinstance(value, str) else value or ():
            name, at, host = address.rpartition("@")
            if not (name and at and host) or any(character.isspace() or character in "<>," for character in address):
                raise ValueError(f"{address!r} is not an address; write one such as data@example.com")
        return value

    @model_validator(mode="after")
    def _are_whole(self) -> MailSettings:
        needed = {"EMAIL_FROM": self.email_from, "SMTP_HOST": self.smtp_host}
        if self.email_to and (missing := [PREFIX + name for name, value in needed.items() if not value]):
            raise ValueError(f"{PREFIX}EMAIL_TO is set, so {' and '.join(missing)} must be set too")
        if bool(self.smtp_user) != bool(self.smtp_password):
            raise ValueError(f"set both of {PREFIX}SMTP_USER and {PREFIX}SMTP_PASSWORD, or neither")
        return self


_S = TypeVar("_S", bound=_Settings)
_ALL: tuple[type[_Settings], ...] = (Content, WebhookSettings, MailSettings)
_SECRETS = {"webhook_url", "smtp_password"}


def read(which: type[_S]) -> _S:
    """Return these settings from the environment.

    Raises:
        SettingsError: a value is invalid.
    """
    try:
        return which()
    except ValidationError as error:
        found = "; ".join(map(_say, error.errors(include_url=False, include_context=False)))
        raise SettingsError(f"{found}.") from None


def check() -> None:
    """Read all settings.

    Raises:
        SettingsError: a value is invalid, or a variable is unknown.
    """
    found = []
    for which in _ALL:
        try:
            read(which)
        except SettingsError as error:
            found.append(str(error))
    if stray := unknown():
        found.append(stray)
    if found:
        raise SettingsError(" ".join(found))


def unknown() -> str | None:
    """Return which variables have the prefix and are not settings: a misspelt one would send alerts nowhere."""
    ours = {PREFIX + name.upper() for which in _ALL for name in which.model_fields}
    if strays := sorted(name for name in os.environ if name.startswith(PREFIX) and name not in ours):
        return f"{', '.join(strays)} is not a setting; the settings are {', '.join(sorted(ours))}."
    return None


def _say(error: Any) -> str:
    said = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return str(said)
    name = str(error["loc"][0])
    value = "" if name in _SECRETS else f"={os.environ.get(PREFIX + name.upper(), '')}"
    return f"{PREFIX}{name.upper()}{value}: {said}"
