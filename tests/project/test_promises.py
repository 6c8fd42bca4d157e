"""tests/promises.yml lists each page's promises with their tests; it matches both pages and tests."""

from __future__ import annotations

import ast
import functools
import re

import pytest
import yaml

from tests.conftest import REPOSITORY

PAGES = ["README.md", "plugins/singer-postgres/README.md", "transform/packages/in_place/README.md"]
PAGES += sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").rglob("*.md"))
# generated from the code
for generated in ("commands", "errors", "settings", "variables", "tables"):
    PAGES.remove(f"docs/reference/{generated}.md")
PROMISES = yaml.safe_load((REPOSITORY / "tests/promises.yml").read_text())


def words(text: str) -> str:
    return " ".join(text.split())


def sections(page: str) -> dict[str, str]:
    """Return the text below each heading of a page. Comments in code blocks are not headings."""
    found: dict[str, str] = {}
    name, fenced = "", False
    for line in (REPOSITORY / page).read_text().splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (heading := re.match(r"#+ (.+)", line)):
            name = heading[1]
        found[name] = f"{found.get(name, '')}\n{line}"
    return {heading: words(text) for heading, text in found.items()}


@functools.cache
def functions(file: str) -> set[str]:
    """Return the names of a file's tests, without running it."""
    tree = ast.parse((REPOSITORY / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_page_is_listed_and_no_other():
    assert sorted(PROMISES) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_section_has_its_promises_and_the_page_has_their_words(page):
    there = sections(page)
    assert PROMISES[page].keys() == there.keys()
    gone = [
        (section, each["says"])
        for section, promises in PROMISES[page].items()
        for each in promises
        if words(each["says"]) not in there[section]
    ]
    assert gone == [], "what a page no longer says: change it in tests/promises.yml too, and the test"


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_has_a_test_that_exists_or_says_why_not(page):
    for promises in PROMISES[page].values():
        for each in promises:
            assert bool(each.get("tests")) is not bool(each.get("why")), each
            for test in each.get("tests", []):
                file, _, name = test.partition("::")
                assert name.startswith("test_"), test
                assert name in functions(file), test
