"""The content of an alert, whatever its fields contain."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tidemark_airflow.alerts import message


def texts(payload):
    """Return every text of a message that Slack interprets."""
    for block in payload["blocks"]:
        yield from (field["text"] for field in block.get("fields", ()))
        yield from [block["text"]["text"]] if "text" in block else []
    yield payload["text"]


def test_text_from_outside_makes_no_link_and_no_mention_in_slack(alert):
    payload = message.for_slack(replace(alert, reason="<!channel> <https://evil.example|here> & ```*@here* @Channel"))
    said = json.dumps(payload, ensure_ascii=False)
    assert "<!channel>" not in said
    assert "<https://evil" not in said
    assert "@here" not in said
    assert "@Channel" not in said
    code = next(text for text in texts(payload) if text.startswith("```"))
    assert code.count("```") == 2
    assert "&lt;https://evil.example|here&gt; &amp; '''*" in code


def test_links_are_links_and_a_path_is_a_path(alert):
    links = message.for_slack(replace(alert, runbook="docs/runbook.md#load"))["blocks"][-1]["text"]["text"]
    assert "<https://airflow.example.com/dags/hourly-sync/runs/scheduled__1?a=1&amp;b=2|The run>" in links
    assert links.endswith("What to do: docs/runbook.md#load")


@pytest.mark.parametrize("character", ["x", "&", "`", "\n x"], ids=["plain", "escaped", "code", "lines"])
def test_no_text_is_longer_than_slack_takes(alert, character):
    long = character * 9000
    full = dict.fromkeys(("reason", "dag", "task", "owner", "run", "attempt"), long)
    payload = message.for_slack(replace(alert, **full, more=(long,) * 30))
    assert all(len(text) <= 3000 for text in texts(payload))
    for block in payload["blocks"]:
        assert all(len(field["text"]) <= 2000 for field in block.get("fields", ()))
        assert len(block.get("fields", ())) <= 10
    assert any("… and" in text for text in texts(payload))


def test_a_reason_of_many_lines_becomes_one_line(alert):
    assert message.one_line("one\r\n  two\tthree\x1b[0m\x00") == "one two three [0m"
    assert "\n" not in message.for_log(replace(alert, reason="a\nb", more=("c\nd",)))


def test_changed_tables_are_in_every_form_of_the_alert(alert):
    drifted = replace(alert, more=("public-orders: note text was added",))
    _, text, html = message.for_mail(drifted)
    for said in (text, html, message.for_log(drifted), message.for_slack(drifted)["text"]):
        assert "public-orders: note text was added" in said


def test_a_mails_text_is_laid_out_for_reading(alert):
    _, text, _ = message.for_mail(alert)
    assert text.splitlines()[:6] == [
        "hourly-sync failed in extract_load (source_unreachable)",
        "",
        alert.reason,
        "",
        "Task               extract_load, try 3 of 3",
        "Code               source_unreachable",
    ]
