"""The runbook matches the links in alerts and errors, and the existing commands."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY
from tidemark.cli.app import app
from tidemark.run.kinds import FailureKind

RUNBOOK = (REPOSITORY / "docs" / "runbook.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n\n((?:(?!^## ).*\n)*)", RUNBOOK, re.MULTILINE))
# kinds that only Airflow sees, and the section for missing alerts
BESIDE = {"usage", "deadline", "timeout", "killed", "retry", "delivery"}


def test_every_kind_of_failure_has_a_section_and_every_section_a_kind():
    assert set(SECTIONS) == {*map(str, FailureKind), *BESIDE}


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_a_section_says_meaning_look_fix_and_whether_it_fixes_itself(name):
    words = re.findall(r"^\*\*([\w ]+)\*\*", SECTIONS[name], re.MULTILINE)
    assert words[0] in {"Means", "As an error"}
    assert words[1:] == ["Look", "Mend", "Mends itself"]


def test_the_table_at_its_head_lists_all_but_delivery():
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
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_runbooks_commands_exist():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    commands |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"\.venv/bin/tidemark (?:--debug )?([a-z]+)", RUNBOOK)) <= commands
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", RUNBOOK, re.MULTILINE)) <= targets
