"""What arrives at real receivers, and what happens to alerts that can't be sent."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from receivers import SECRET, Mailbox
from tidemark_airflow.alerts import callbacks, channels
from tidemark_airflow.alerts.channels import deliver


@pytest.fixture(autouse=True)
def everything_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET not in caplog.text
    assert SECRET.rpartition("/")[2] not in caplog.text


def errors(caplog):
    ours = [record for record in caplog.records if record.name.startswith("tidemark_airflow.")]
    return [record.getMessage() for record in ours if record.levelname == "ERROR"]


@pytest.fixture
def nobody():
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_webhook_gets_slacks_json(webhook, alert, caplog):
    deliver(alert)
    (body,) = webhook.bodies
    assert webhook.paths == [f"/services/{SECRET}"]
    assert body["text"].splitlines()[0] == "hourly-sync failed in extract_load (source_unreachable)"
    assert [block["type"] for block in body["blocks"]] == ["section"] * 4
    assert not errors(caplog)


def test_mail_is_readable_as_text_and_as_html(mailbox, alert, caplog):
    deliver(alert)
    (mail,), (envelope,) = mailbox.mails, mailbox.envelopes
    assert envelope.rcpt_tos == ["data@example.com", "oncall@example.com"]
    assert envelope.mail_from == "tidemark@example.com"
    assert mail["Subject"] == "[Tidemark] hourly-sync failed in extract_load (source_unreachable)"
    assert mail["Date"] == "Tue, 24 Nov 2026 03:17:31 +0000"
    text = mail.get_body(["plain"]).get_content()
    html = mail.get_body(["html"]).get_content()
    for part in (text, html):
        for said in ("extract_load, try 3 of 3", "data team", "2026-11-24 03:17:31 UTC", alert.run, alert.run_id):
            assert said in part
    assert alert.reason in text
    assert f"The task's log: {alert.log_url}" in text
    assert f"What to do: {alert.runbook}" in text
    assert "&lt;b&gt;connection&lt;/b&gt; refused &amp; *lost*" in html
    assert '<a href="https://airflow.example.com/dags/hourly-sync/runs/scheduled__1?a=1&amp;b=2">The run</a>' in html
    assert not errors(caplog)


def test_an_alert_goes_to_every_channel_that_is_set(webhook, mailbox, alert):
    deliver(alert)
    assert (len(webhook.bodies), len(mailbox.mails)) == (1, 1)


def test_with_no_channel_an_alert_is_one_line_in_the_log(alert, caplog):
    deliver(alert)
    (line,) = errors(caplog)
    assert "\n" not in line
    for said in (alert.title, alert.reason, alert.run_id, alert.log_url, alert.runbook):
        assert said in line


def test_a_webhook_that_fails_for_a_moment_is_tried_again(webhook, alert, caplog, waits):
    webhook.answers = [(500, {}), (503, {}), (200, {})]
    deliver(alert)
    assert len(webhook.bodies) == 3
    assert waits[1] > waits[0]
    assert not errors(caplog)


def test_a_webhooks_retry_after_is_respected(webhook, alert, waits):
    webhook.answers = [(429, {"Retry-After": "11"}), (200, {})]
    deliver(alert)
    assert len(webhook.bodies) == 2
    assert waits == [11]


def test_a_webhooks_retry_after_may_be_a_date(webhook, alert, waits):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=15), usegmt=True)
    webhook.answers = [(503, {"Retry-After": date}), (200, {})]
    deliver(alert)
    assert len(webhook.bodies) == 2
    assert waits[0] > 1.5


def test_a_webhooks_long_retry_after_does_not_delay_a_run(webhook, alert, caplog, waits):
    webhook.answers = [(429, {"Retry-After": "3600"})]
    deliver(alert)
    assert (len(webhook.bodies), waits) == (1, [])
    (line,) = errors(caplog)
    assert "it answered 429 Too Many Requests" in line


def test_a_permanent_refusal_is_not_retried(webhook, alert, caplog):
    webhook.answers = [(404, {})]
    deliver(alert)
    assert len(webhook.bodies) == 1
    (line,) = errors(caplog)
    assert "could not be sent to the webhook at 127.0.0.1: it answered 404 Not Found. The alert: hourly-sync" in line


def test_a_dead_webhook_is_given_up_and_the_mail_is_still_sent(monkeypatch, nobody, mailbox, alert, caplog, waits):
    monkeypatch.setenv("TIDEMARK_ALERTS_WEBHOOK_URL", f"http://127.0.0.1:{nobody}/services/{SECRET}")
    deliver(alert)
    assert len(waits) == 3
    (line,) = errors(caplog)
    assert "Connection refused, 4 times" in line
    assert len(mailbox.mails) == 1


def test_a_webhook_that_never_answers_delays_nothing(webhook, monkeypatch, alert, caplog):
    webhook.silent = threading.Event()
    monkeypatch.setattr(channels, "_BOUND_S", 0.2)
    deliver(alert)
    (line,) = errors(caplog)
    assert "it did not end within 0.2 s" in line


def test_a_slow_webhook_gets_as_many_attempts_as_any(webhook, monkeypatch, alert, caplog):
    webhook.silent = threading.Event()
    monkeypatch.setattr(channels, "_TIMEOUT_S", 0.1)
    deliver(alert)
    assert len(webhook.bodies) == 4
    (line,) = errors(caplog)
    assert "it did not answer within 0.1 s, 4 times" in line


def test_mail_that_is_refused_for_now_is_sent_again_as_the_same_mail(mailbox, alert, caplog):
    mailbox.answers = ["451 try again later"]
    deliver(alert)
    assert mailbox.attempts == 2
    assert len(mailbox.mails) == 1
    assert not errors(caplog)


def test_mail_that_is_refused_for_good_is_sent_once(mailbox, alert, caplog):
    mailbox.answers = ["554 no such luck"]
    deliver(alert)
    assert mailbox.attempts == 1
    (line,) = errors(caplog)
    assert "it answered 554 no such luck. The alert" in line


def test_one_refused_recipient_is_reported_and_the_others_get_the_mail(mailbox, alert, caplog):
    mailbox.refused = ("oncall@example.com",)
    deliver(alert)
    assert mailbox.envelopes[0].rcpt_tos == ["data@example.com"]
    (line,) = errors(caplog)
    assert "it refused oncall@example.com and accepted the others" in line


def test_a_dead_mail_server_is_given_up_and_the_webhook_still_gets_the_alert(
    nobody, webhook, alert, caplog, monkeypatch
):
    monkeypatch.setenv("TIDEMARK_ALERTS_SMTP_PORT", str(nobody))
    for name, value in {"EMAIL_TO": "a@example.com", "EMAIL_FROM": "b@example.com", "SMTP_HOST": "127.0.0.1"}.items():
        monkeypatch.setenv(f"TIDEMARK_ALERTS_{name}", value)
    deliver(alert)
    assert len(webhook.bodies) == 1
    (line,) = errors(caplog)
    assert f"the mail server 127.0.0.1:{nobody}" in line


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secured(certificate, set_mail):
    """A mail server that accepts mail only after a login, over TLS."""
    box = Mailbox()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    controller = box.controller(
        tls_context=context, require_starttls=True, auth_required=True, authenticator=box.authenticate
    )
    controller.start()
    set_mail(controller, smtp_host="localhost", smtp_security="starttls", smtp_user="me", smtp_password=SECRET)
    yield box
    controller.stop()


def test_mail_goes_over_tls_to_a_server_that_asks_for_a_password(secured, certificate, monkeypatch, alert, caplog):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    deliver(alert)
    assert secured.logins == [("me", SECRET)]
    assert len(secured.mails) == 1
    assert not errors(caplog)


def test_a_password_is_not_sent_to_a_server_that_cannot_prove_its_name(secured, alert, caplog):
    deliver(alert)
    assert not secured.logins
    (line,) = errors(caplog)
    assert "certificate" in line


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("SMTP_PORT", "many", "SMTP_PORT=many: Input should be a valid integer", id="port"),
        pytest.param("EMAIL_TO", "data", "'data' is not an address", id="address"),
        pytest.param("SMTP_SECURITY", "tls", "SMTP_SECURITY=tls: Input should be 'none', 'starttls'", id="security"),
        pytest.param("SMTP_PASSWORD", SECRET, "set both of", id="password-without-a-user"),
        pytest.param("SMTP_HOST", "", "TIDEMARK_ALERTS_SMTP_HOST must be", id="no-host"),
        pytest.param("SLACK_URL", "x", "TIDEMARK_ALERTS_SLACK_URL is not a setting", id="misspelt"),
    ],
)
@pytest.mark.usefixtures("mailbox")
def test_wrong_settings_lead_to_one_line_and_do_not_disable_other_channels(
    webhook, alert, caplog, monkeypatch, name, value, said
):
    monkeypatch.setenv(f"TIDEMARK_ALERTS_{name}", value)
    deliver(alert)
    (line,) = errors(caplog)
    assert said in line
    assert "\n" not in line
    assert len(webhook.bodies) == 1


@pytest.mark.parametrize("url", [f"hooks.example.com/{SECRET}", f"https:///{SECRET}", f"ftp://a/{SECRET}"])
def test_a_wrong_webhook_is_reported_without_its_url(url, monkeypatch, alert, caplog):
    monkeypatch.setenv("TIDEMARK_ALERTS_WEBHOOK_URL", url)
    deliver(alert)
    mistake, told = errors(caplog)
    assert "TIDEMARK_ALERTS_WEBHOOK_URL: it must begin with https:// and a host" in mistake
    assert told.startswith(alert.title)


def test_a_callback_that_breaks_does_not_fail_the_run(caplog):
    callbacks.run_failed({})
    assert errors(caplog) == ["An alert could not be made (run_failed): 'dag'"]
