"""Sends an alert to every configured channel. An alert that can't be sent becomes an error line in the log.

A dead receiver must not delay a run: each attempt has a time-out, attempts are limited, and deliver() stops waiting
after a fixed time. If an answer gets lost, the alert is sent again: an alert that arrives twice is better than none.

Airflow's own notifiers failed this package's tests. SmtpNotifier sends no plain text, doesn't notice a refused
recipient, and retries permanent refusals without a pause. Slack's client doesn't retry after a time-out, waits for any
Retry-After, and fails if that is a date. AppriseHook ignores whether a message was sent. HttpHook retries with
tenacity, as this module does. All but SmtpNotifier need further packages, such as aiohttp.
"""

from __future__ import annotations

import logging
import smtplib
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import make_msgid, parsedate_to_datetime
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential_jitter,
)

from tidemark_airflow.alerts import message, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidemark_airflow.alerts.message import Alert

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5
_ATTEMPTS = 4
# no attempt begins later than this after the first one; the last one ends some seconds later
_WITHIN_S = 20
_BOUND_S = 30
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING}


class AlertUndeliveredError(Exception):
    """The reason why an alert could not be sent, on one line without any secret."""


class _PassingError(AlertUndeliveredError):
    """A transient failure. `after`: the seconds to wait, if the receiver named them."""

    def __init__(self, reason: str, after: float = 0) -> None:
        super().__init__(reason)
        self.after = after


class Channel(Protocol):
    """A way to send alerts to people."""

    name: str

    def attempt(self, alert: Alert) -> None:
        """Send the alert once.

        Raises:
            AlertUndeliveredError: the alert can't be sent.
        """


@dataclass
class Webhook:
    """Slack's webhook, or another one that accepts the same JSON."""

    url: str

    def __post_init__(self) -> None:
        # only the host: the rest of the URL is the secret
        self.name = f"the webhook at {httpx.URL(self.url).host}"

    def attempt(self, alert: Alert) -> None:
        """Send it; see Channel."""
        # httpx logs each request with its URL, which is a secret; Airflow drops these lines at every log level
        try:
            response = httpx.post(self.url, json=message.for_slack(alert), timeout=_TIMEOUT_S)
        except httpx.TimeoutException:
            raise _PassingError(f"it did not answer within {_TIMEOUT_S} s") from None
        except httpx.TransportError as error:
            raise _PassingError(str(error) or type(error).__name__) from None
        if response.is_success:
            return
        said = f"it answered {response.status_code} {response.reason_phrase}".rstrip()
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            raise _PassingError(said, _seconds(response.headers.get("Retry-After", "")))
        raise AlertUndeliveredError(said)


@dataclass
class Mail:
    """Recipients of mail, and their mail server."""

    settings: settings.MailSettings

    def __post_init__(self) -> None:
        self.name = f"the mail server {self.settings.smtp_host}:{self.settings.port}"
        domain = (self.settings.email_from or "").rpartition("@")[2]
        # one id for all attempts, so that a mailbox can detect duplicates
        self._id = make_msgid(domain=domain)

    def attempt(self, alert: Alert) -> None:
        """Send it; see Channel."""
        try:
            with self._connection() as connection:
                refused = connection.send_message(self._message(alert))
        except smtplib.SMTPRecipientsRefused as error:
            raise _judged(*next(iter(error.recipients.values()))) from None
        except smtplib.SMTPResponseException as error:
            raise _judged(error.smtp_code, error.smtp_error) from None
        except (smtplib.SMTPNotSupportedError, ssl.SSLError) as error:
            raise AlertUndeliveredError(_first_line(error)) from None
        except OSError as error:
            raise _PassingError(_first_line(error)) from None
        if refused:
            raise AlertUndeliveredError(f"it refused {', '.join(refused)} and accepted the others")

    def _connection(self) -> smtplib.SMTP:
        host, port = self.settings.smtp_host or "", self.settings.port
        if self.settings.smtp_security == "ssl":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                host, port, timeout=_TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            connection = smtplib.SMTP(host, port, timeout=_TIMEOUT_S)
        try:
            if self.settings.smtp_security == "starttls":
                connection.starttls(context=ssl.create_default_context())
            if self.settings.smtp_user and self.settings.smtp_password:
                connection.login(self.settings.smtp_user, self.settings.smtp_password.get_secret_value())
        except BaseException:
            connection.close()
            raise
        return connection

    def _message(self, alert: Alert) -> EmailMessage:
        subject, text, html = message.for_mail(alert)
        mail = EmailMessage()
        mail["Subject"] = subject
        mail["From"] = self.settings.email_from
        mail["To"] = ", ".join(self.settings.email_to)
        mail["Date"] = alert.at
        mail["Message-ID"] = self._id
        # this prevents out-of-office replies
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(text)
        mail.add_alternative(html, subtype="html")
        return mail


def deliver(alert: Alert) -> None:
    """Send the alert to each configured channel, or log it if there is none. This never raises and always returns."""
    channels, mistakes = _channels()
    for mistake in mistakes:
        logger.error("The settings of alerts are wrong: %s", mistake)
    if not channels:
        logger.log(_LEVELS[alert.level], "%s", message.for_log(alert))
        return
    told: dict[str, str | None] = {}
    threads = [Thread(target=_send, args=(channel, alert, told), daemon=True) for channel in channels]
    for thread in threads:
        thread.start()
    # name resolution has no time-out, and a receiver can answer slowly: neither may delay a run
    end = monotonic() + _BOUND_S
    for thread in threads:
        thread.join(max(0, end - monotonic()))
    for channel in channels:
        if why := told.get(channel.name, f"it did not end within {_BOUND_S} s"):
            # log the whole alert, because it arrives nowhere else
            said = message.for_log(alert)
            logger.error("An alert could not be sent to %s: %s. The alert: %s", channel.name, why, said)
        else:
            logger.info("An alert was sent to %s: %s", channel.name, alert.title)


def _channels() -> tuple[list[Channel], list[str]]:
    """Return the configured channels, and the mistakes in their settings."""
    channels: list[Channel] = []
    mistakes: list[str] = []
    makers: tuple[Callable[[], Channel | None], ...] = (_webhook, _mail)
    for maker in makers:
        try:
            channel = maker()
        except settings.SettingsError as error:
            mistakes.append(str(error))
        else:
            channels += [channel] if channel else []
    if stray := settings.unknown():
        mistakes.append(stray)
    return channels, mistakes


def _webhook() -> Webhook | None:
    url = settings.read(settings.WebhookSettings).webhook_url
    return Webhook(url.get_secret_value()) if url else None


def _mail() -> Mail | None:
    found = settings.read(settings.MailSettings)
    return Mail(found) if found.email_to else None


def _send(channel: Channel, alert: Alert, told: dict[str, str | None]) -> None:
    """Send the alert, with retries. Store the reason of a failure in `told`, or None."""
    retrying = Retrying(
        retry=retry_if_exception_type(_PassingError),
        stop=stop_after_attempt(_ATTEMPTS) | stop_before_delay(_WITHIN_S),
        wait=_wait,
        sleep=sleep,
        reraise=True,
    )
    try:
        retrying(channel.attempt, alert)
    except AlertUndeliveredError as error:
        tries = retrying.statistics["attempt_number"]
        told[channel.name] = f"{error}{f', {tries} times' if tries > 1 else ''}"
    except Exception as error:  # noqa: BLE001 - an alert must not fail the run; the text might hold a secret
        told[channel.name] = type(error).__name__
    else:
        told[channel.name] = None


_backing_off = wait_exponential_jitter(initial=1, max=8)


def _wait(state: RetryCallState) -> float:
    """Return how long to wait: as long as the receiver asked for, or else longer each time."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.after if isinstance(error, _PassingError) else 0
    return max(asked, _backing_off(state))


def _seconds(retry_after: str) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or a date; 0 for anything else."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _judged(code: int, said: bytes | str) -> AlertUndeliveredError:
    """Return the error for a mail server's answer: 4xx is transient, 5xx is permanent (RFC 5321, 4.2.1)."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    kind = _PassingError if code < 500 else AlertUndeliveredError  # noqa: PLR2004
    return kind(message.one_line(f"it answered {code} {text}", 200))


def _first_line(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"it did not answer within {_TIMEOUT_S} s"
    if isinstance(error, socket.gaierror):
        return f"its host name is unknown ({error.strerror})"
    return message.one_line(str(error) or type(error).__name__, 200)
