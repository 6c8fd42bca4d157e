"""The runbook matches the links in alerts and errors, and the existing commands."""

from __future__ import annotations

import re

import pytest

from singer_postgres.core.errors import catalogue
from tests.conftest import REPOSITORY
from tests.project.alert_rules import ALERTS
from tidemark import errors  # noqa: F401 - the catalogue includes its classes
from tidemark.cli.app import app
from tidemark_airflow.alerts import codes

RUNBOOK = (REPOSITORY / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n\n((?:(?!^## ).*\n)*)", RUNBOOK, re.MULTILINE))
CODE = r'<a id="([a-z_]+)"></a>`\1`'
CODES = [*catalogue(), *codes.ALL]
# what an alert says of a retry, and the section for missing alerts
BESIDE = {"retry", "delivery"}
OF_ALERTS = {
    # Grafana's table of alerts leads to these anchors
    name: set(re.findall(r'<a id="(\w+)"></a>`\1`', found[1]))
    for name, text in SECTIONS.items()
    if (found := re.search(r"^\*\*Alerts\*\*: (.+)$", text, re.MULTILINE))
}


def test_each_code_is_in_the_section_that_its_class_names_and_in_no_other():
    stated = {(code, name) for name, text in SECTIONS.items() for code in re.findall(CODE, text)}
    # the heading is the anchor of a code that has a section of its own
    assert stated == {(kind.code, kind.section) for kind in CODES if kind.code != kind.section}
    assert {kind.section for kind in CODES} <= SECTIONS.keys()


def test_every_section_has_a_code_or_an_alert_except_those_of_airflow():
    assert set(SECTIONS) - {kind.section for kind in CODES} - set(OF_ALERTS) == BESIDE - set(OF_ALERTS)


def test_each_alert_is_in_the_section_that_its_link_names_and_in_no_other():
    linked = set()
    for alert in ALERTS:
        path, _, section = alert["annotations"]["runbook_url"].partition("#")
        assert path == "docs/runbook.md"
        # a failed stream's link has the code of its error, whose anchor is in the section of the code
        linked.add((alert["alert"], "load" if section.startswith("{{ or $labels.code") else section))
    assert linked == {(name, section) for section, names in OF_ALERTS.items() for name in names}


def test_each_error_class_has_its_own_code_a_cause_and_a_cure():
    for kind in catalogue():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+|unexpected|deadlock", kind.code)
        assert (kind.__doc__ or "").strip().endswith(".") or "\n\n" in (kind.__doc__ or "")
        assert kind.cure.endswith(".")


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_a_section_says_meaning_look_fix_and_whether_it_fixes_itself(name):
    words = re.findall(r"^\*\*([\w ]+)\*\*", SECTIONS[name], re.MULTILINE)
    words = [word for word in words if word not in {"Codes", "Alerts"}]
    assert words[0] in {"Means", "As an error"}
    assert words[1:] == ["Look", "Fix", "Passes by itself"]


def test_the_runbooks_first_table_lists_every_section_but_delivery():
    listed = re.findall(r"^\| \[(\w+)\]\(#(\w+)\)", RUNBOOK, re.MULTILINE)
    assert [name for name, _ in listed] == [anchor for _, anchor in listed]
    assert {name for name, _ in listed} == set(SECTIONS) - {"delivery"}


def test_the_runbooks_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        path, _, anchor = target.partition("#")
        if not path:
            assert anchor in SECTIONS
            continue
        text = (REPOSITORY / "docs" / path).read_text()
        if not anchor:
            continue
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_runbooks_commands_exist():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    commands |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"\.venv/bin/tidemark (?:--debug )?([a-z]+)", RUNBOOK)) <= commands
    makefile = "".join((REPOSITORY / name).read_text() for name in ("Makefile", "plugins/project.mk"))
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", RUNBOOK, re.MULTILINE)) <= targets
