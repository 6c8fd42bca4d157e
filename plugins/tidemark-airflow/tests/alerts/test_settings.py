"""Settings of alerts are checked before anything fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemark_airflow.alerts import settings

EXAMPLE = Path(__file__).parents[4] / ".env.example"


def test_every_setting_is_in_the_example_and_the_example_has_no_other(monkeypatch):
    lines = [line.lstrip("#") for line in EXAMPLE.read_text().splitlines() if "TIDEMARK_ALERTS_" in line]
    names = {line.partition("=")[0] for line in lines}
    ours = {settings.PREFIX + name.upper() for which in settings._ALL for name in which.model_fields}
    assert names == ours
    for line in lines:
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    settings.check()


def test_all_wrong_settings_are_reported_at_once_before_anything_fails(monkeypatch):
    monkeypatch.setenv("TIDEMARK_ALERTS_ON_RETRY", "perhaps")
    monkeypatch.setenv("TIDEMARK_ALERTS_WEBHOOK_URL", "hooks.example.com/secret")
    monkeypatch.setenv("TIDEMARK_ALERTS_EMAIL_TO", "data@example.com")
    monkeypatch.setenv("TIDEMARK_ALERTS_SLACK", "x")
    with pytest.raises(settings.SettingsError) as raised:
        settings.check()
    said = str(raised.value)
    for part in (
        "ON_RETRY=perhaps",
        "WEBHOOK_URL: it must begin",
        "SMTP_HOST must be set too",
        "ALERTS_SLACK is not a setting",
    ):
        assert part in said
    assert "secret" not in said
