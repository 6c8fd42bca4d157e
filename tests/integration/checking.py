"""Runs `tidemark check` on the demo shop, for tests that break something first."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.stages import make_checkout
from tidemark.inspect.check import run
from tidemark.inspect.check.finding import Level
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

Told = dict[str, Any]
SIDES = ("source", "warehouse")
READER = 'the "reader"'


def shops() -> Iterator[Checkout]:
    """Both servers, with the demo shop and roles without rights; each test restores what it breaks."""
    for made in make_checkout(stage="up"):
        made.tidemark("demo", "load", "--scale", "0.001")
        for side in SIDES:
            execute(made, side, f"create role {quoted(READER)} login password 'secret'")
        execute(made, "source", f"grant select on all tables in schema public to {quoted(READER)}")
        yield made


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def execute(checkout: Checkout, side: str, *statements: str) -> None:
    with checkout.connect(side) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def broken(checkout: Checkout, side: str, *statements: str, then: tuple[str, ...]) -> Iterator[None]:
    try:
        execute(checkout, side, *statements)
        yield
    finally:
        execute(checkout, side, *then)


def streams(**methods: str | None) -> dict[str, str]:
    """Return variables that select these tables of schema public, each with its replication key, if any."""
    metadata = {
        f"public-{table}": {"replication-method": "INCREMENTAL", "replication-key": key}
        for table, key in methods.items()
        if key
    }
    return {
        "TAP_POSTGRES__SELECT": json.dumps([f"public-{table}.*" for table in methods]),
        "TAP_POSTGRES__METADATA": json.dumps(metadata),
    }


def check(checkout: Checkout, env: dict[str, str] | None = None, *, every: bool = False) -> list[Told]:
    """Return the findings of `tidemark check --json` that are not in order, without starting Meltano each time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            patch.delenv(name)
        for name, value in {**checkout.env, **(env or {})}.items():
            patch.setenv(name, value)
        findings = run.check(Project(checkout.root))
    told: list[Told] = [finding.as_dict() for finding in findings if finding.level is not Level.ok]
    # most of these tests select a few tables of many
    return told if every else [finding for finding in told if "not selected" not in finding["what"]]


def only(found: list[Told]) -> Told:
    assert len(found) == 1, json.dumps(found, indent=2)
    return found[0]
