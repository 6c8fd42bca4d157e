"""A person on a terminal accepts, edits or narrows a proposal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.unit.test_onboard_rules import STAMP, column, proposed, table
from tidemark.onboard.ask import ask
from tidemark.onboard.proposal import Method

TABLES = (
    table(STAMP, column("email", "text"), name="customer"),
    table(STAMP, name="orders"),
    table(name="log_1"),
    table(name="log_2"),
)
EDITS = {
    "accepted as it is": (["accept"], {}),
    "one question answered": (["answer", "each", "y", "n", "accept"], {"customer": Method.incremental}),
    "all questions answered": (
        ["answer", "yes to all", "accept"],
        {"customer": Method.incremental, "orders": Method.incremental},
    ),
    "narrowed": (["without", "log_*", "accept"], {"log_1": Method.left_out, "log_2": Method.left_out}),
    "a method chosen": (["method", "log_1", "INCREMENTAL", "id", "accept"], {"log_1": Method.incremental}),
    "a mistake": (["without", "nothing", "method", "orders", "INCREMENTAL", "oops", "accept"], {}),
}


def answered(monkeypatch: pytest.MonkeyPatch, *lines: str):
    console = Console(file=io.StringIO(), width=200)
    left = iter(lines)

    def read(_console: Console, *_: object, **__: object) -> str:
        line = next(left, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr(Console, "input", read)
    found = ask(console, proposed(*TABLES))
    assert next(left, None) is None, "not all answers were asked for"
    return found


@pytest.mark.parametrize(("lines", "changed"), EDITS.values(), ids=EDITS)
def test_the_answers_lead_to_what_was_meant(monkeypatch, lines, changed):
    found = answered(monkeypatch, *lines)
    expected = {one.name: changed.get(one.name, Method.full_table) for one in TABLES}
    assert {each.table.name: each.method for each in found.tables} == expected


def test_masks_are_off_until_they_are_confirmed(monkeypatch):
    assert not any(each.masks_confirmed for each in answered(monkeypatch, "accept").tables)
    confirmed = answered(monkeypatch, "masks", "y", "accept")
    assert [each.table.name for each in confirmed.tables if each.masks_confirmed] == ["customer"]


@pytest.mark.parametrize("lines", [["quit"], []], ids=["quit", "end of input"])
def test_an_end_without_acceptance_changes_nothing(monkeypatch, lines):
    assert answered(monkeypatch, *lines) is None
