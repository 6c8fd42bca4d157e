"""The documentation: a site that needs no other host, links that work, pages that match the code."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import grimp
import pytest
from playwright.sync_api import sync_playwright
from typer.main import get_command

from tests.airflow.browser import CHROMIUM
from tests.conftest import REPOSITORY
from tests.project.test_project import FILES
from tidemark.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = REPOSITORY / "plugins/singer-postgres/src/singer_postgres"
# Chromium has no sandbox for root
FLAGS = ["--no-sandbox"] if os.geteuid() == 0 else []
COMMANDS = get_command(app)
PAGES = [path for path in FILES if path.suffix == ".md" and "CHANGELOG" not in path.name]


def build(generator: str, to: Path) -> None:
    command = [sys.executable, "docs/build_site.py", "--generator", generator, "--to", str(to)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("generator", ["mkdocs", pytest.param("zensical", marks=pytest.mark.long)])
def test_the_site_builds_without_a_warning_and_loads_nothing_from_another_host(generator, tmp_path):
    build(generator, tmp_path)
    # only resources that a browser loads by itself; people may follow links
    fetched = r'<(?:script|img|iframe|link rel="(?:stylesheet|preload|icon)")[^>]*(?:src|href)="(?:https?:)?//[^"]*"'
    asked = {found for page in tmp_path.rglob("*.html") for found in re.findall(fetched, page.read_text())}
    assert asked == set()
    assert "lists what is missing" in html.unescape((tmp_path / "how-to/databases.html").read_text())


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")
@pytest.mark.parametrize("generator", ["mkdocs", "zensical"])
def test_each_page_fits_a_phone_and_the_search_finds_a_word_without_a_network(generator, tmp_path):
    build(generator, tmp_path)
    asked: set[str] = set()
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: asked.add(request.url))
        for path in sorted(tmp_path.rglob("*.html")):
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path.name
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("request", lambda request: asked.add(request.url))
        page.goto((tmp_path / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("lookback_seconds")
        page.locator("a[href*='reference/settings.html#tap-postgres']").wait_for()
    assert {url for url in asked if not url.startswith(("file:", "data:", "blob:"))} == set()


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub creates for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_to_an_existing_file_and_heading(page):
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        to = (page.parent / target).resolve() if target else page
        assert to.exists(), target
        if anchor and to.suffix == ".md":
            assert anchor in anchors(to.read_text()), f"{target}#{anchor}"


def commands_shown(page: Path) -> list[str]:
    """Return what follows `tidemark` in the code of a page, to the end of the command."""
    text = page.read_text()
    code = re.findall(r"^ {4,}(.+)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", text)
    shown = (re.findall(r"(?:^|bin/|etl |dbt )tidemark ([^#|;]+)", part) for part in code)
    return [" ".join(command.split()) for commands in shown for command in commands]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_tidemark_command_of_a_page_exists_with_its_options(page):
    for shown in commands_shown(page):
        command, known, before = COMMANDS, {"--debug", "--help"}, ""
        for word in shown.split():
            if word.startswith("--"):
                assert word.partition("=")[0].rstrip(".,") in known, shown
            elif hasattr(command, "commands") and not (before.startswith("--") and word not in command.commands):
                if word in {"…", "..."}:
                    break
                assert word in command.commands, shown
                command = command.commands[word]
                known |= {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
                if command.context_settings.get("ignore_unknown_options"):
                    # what follows is another program's
                    break
            before = word


def test_the_generated_pages_are_what_the_code_says(tmp_path):
    command = ["make", "--silent", "reference", f"REFERENCE={tmp_path}"]
    subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    made = {page.name: page.read_text() for page in tmp_path.iterdir()}
    assert made.keys() == {"commands.md", "errors.md", "settings.md", "variables.md", "tables.md", "metrics.md"}
    for name, text in made.items():
        assert (REPOSITORY / "docs/reference" / name).read_text() == text, f"make reference writes {name} anew"


def test_the_way_of_a_row_names_modules_that_a_run_imports():
    text = (REPOSITORY / "docs/explanation/architecture.md").read_text()
    named = re.findall(r"`([\w/.-]+\.(?:py|sql))`", text)
    assert [name for name in named if not ((REPOSITORY / name).exists() or (PACKAGE / name).exists())] == []
    modules = {f"singer_postgres.{name.removesuffix('.py').replace('/', '.')}" for name in named if "/src/" not in name}
    graph = grimp.build_graph("singer_postgres")
    for side in ("tap", "target"):
        ours = {module for module in modules if module.startswith(f"singer_postgres.{side}.")}
        assert len(ours) > 4
        assert ours <= graph.find_upstream_modules(f"singer_postgres.{side}.entry")
    run = [graph.find_upstream_modules(f"singer_postgres.{side}.entry") for side in ("tap", "target")]
    core = {module for module in modules if module.startswith("singer_postgres.core.")}
    assert len(core) > 10
    assert core <= set().union(*run)
