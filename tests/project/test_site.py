"""The documentation: a site that asks no other host, links that lead somewhere, pages that match the code."""

from __future__ import annotations

import html
import re
import subprocess
import sys

import grimp
import pytest

from tests.conftest import REPOSITORY
from tests.project.test_project import FILES

PACKAGE = REPOSITORY / "plugins/singer-postgres/src/singer_postgres"
PAGES = [path for path in FILES if path.suffix == ".md" and "CHANGELOG" not in path.name]


def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # whatever is fetched as a page is opened; links are for people to follow
    fetched = r'<(?:script|img|iframe|link rel="(?:stylesheet|preload|icon)")[^>]*(?:src|href)="(?:https?:)?//[^"]*"'
    asked = {found for page in tmp_path.rglob("*.html") for found in re.findall(fetched, page.read_text())}
    assert asked == set()
    assert "lists what is missing" in html.unescape((tmp_path / "how-to/databases.html").read_text())


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        to = (page.parent / target).resolve() if target else page
        assert to.exists(), target
        if anchor and to.suffix == ".md":
            assert anchor in anchors(to.read_text()), f"{target}#{anchor}"


def test_the_page_of_commands_is_what_the_commands_say_of_themselves():
    done = subprocess.run(
        ["make", "--silent", "reference", "REFERENCE=/dev/stdout"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (REPOSITORY / "docs/reference/commands.md").read_text() == done.stdout, "make reference"


def test_the_way_of_a_row_names_modules_that_a_run_goes_through():
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
