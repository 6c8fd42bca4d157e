"""`tidemark upgrade --check`: what a merged release brings, without a write."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout
from tidemark.inspect.check.finding import Level
from tidemark.inspect.upgrade import changes, migrations, names
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

COMMENTS = """
    select nspname, relname, obj_description(pg_class.oid, 'pg_class') from pg_class
    inner join pg_namespace on pg_namespace.oid = relnamespace
    where relname ~ '^_tidemark_' and relkind = 'r' order by 1, 2
"""


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="loaded")


def test_each_table_of_the_warehouse_is_known(project):
    tables = {name for _, name, _ in project.rows("warehouse", COMMENTS)}
    assert tables <= {*migrations.known(Project(REPOSITORY))}


def test_migrations_of_the_next_run_are_named_and_nothing_is_written(project):
    said = project.tidemark("upgrade", "--check")
    assert "this release's version" in said
    assert "All is in order." in said
    with project.connect("warehouse") as connection:
        connection.execute("comment on table raw._tidemark_runs is 'Kept by Tidemark: version 1'")
    before = project.rows("warehouse", COMMENTS)
    said = project.tidemark("upgrade", "--check")
    version = migrations.known(Project(REPOSITORY))["_tidemark_runs"][0]
    assert f"raw._tidemark_runs: the next load migrates it from version 1 to {version}" in said
    assert project.rows("warehouse", COMMENTS) == before
    with project.connect("warehouse") as connection:
        connection.execute("comment on table raw._tidemark_runs is 'Kept by Tidemark: version 99'")
    done = project.run("tidemark", "upgrade", "--check")
    assert (done.returncode != 0, "version 99, of a newer release" in done.stdout) == (True, True)


def test_a_warehouse_that_does_not_answer_is_a_warning(bare_project, monkeypatch):
    monkeypatch.setenv("TARGET_POSTGRES_HOST", "127.0.0.1")
    monkeypatch.setenv("TARGET_POSTGRES_PORT", "1")
    (found,) = migrations.findings(bare_project)
    assert found.level is Level.warning
    assert "its tables were not read" in found.what


def test_names_that_a_release_renamed_are_found_in_the_users_files(bare_project):
    root = bare_project.root
    shutil.copy(REPOSITORY / ".env.example", root)
    assert [each.level for each in names.findings(bare_project)] == [Level.ok]
    (root / "transform/models/marts/ours.sql").write_text(
        "{{ config(materialized='kept_table') }} select {{ cleaned('a') }}, {{ tidemark.utc('b') }} from t"
    )
    (root / "transform/models/marts/ours.yml").write_text(
        "models:\n  - name: ours\n    columns:\n      - name: a\n        data_tests:\n"
        "          - not_null\n          - at_least:\n              arguments: {minimum: 0}\n"
    )
    (root / ".env").write_text("TAP_POSTGRES_PASWORD=x\nTAP_POSTGRES__SELECT=[]\nTAP_POSTGRES_HOST=db\nOTHER=1\n")
    path = root / "extract/extractors.meltano.yml"
    path.write_text(path.read_text().replace("variant: tidemark", "variant: tidemark\n      config: {max_paralel: 2}"))
    assert [each.what for each in names.findings(bare_project)] == [
        "`max_paralel` under `config` of tap-postgres is not a setting; max_parallel is one: correct or remove it",
        "TAP_POSTGRES_PASWORD in .env is no variable of this release; TAP_POSTGRES_PASSWORD is one",
        "transform/models/marts/ours.sql: kept_table is now in_place_table",
        "transform/models/marts/ours.sql: cleaned is now tidemark.cleaned",
        "transform/models/marts/ours.yml: at_least is now tidemark.at_least",
    ]


def test_versions_and_new_entries_of_the_changelog_are_named(bare_project):
    root = bare_project.root

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)

    def write(version: str, text: str) -> None:
        (root / "plugins/tidemark").mkdir(parents=True, exist_ok=True)
        (root / "plugins/tidemark/pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
        (root / "CHANGELOG.md").write_text(f"# Changelog\n\n## [Unreleased]\n\n{text}")
        git("add", "--all")
        git("commit", "--quiet", "--message", version)

    git("init", "--quiet")
    write("0.1.0", "## [0.1.0] - 2026-01-01\n\n- Old. Of old.\n")
    assert list(changes.lines(bare_project)) == ["The files and what is installed are of version 0.1.0."]
    git("switch", "--quiet", "--create", "next")
    write(
        "0.2.0",
        "## [0.2.0] - 2026-02-01\n\n- New, in\n  two lines. More.\n\n## [0.1.0] - 2026-01-01\n\n- Old. Of old.\n",
    )
    git("switch", "--quiet", "-")
    git("merge", "--quiet", "next")
    assert list(changes.lines(bare_project)) == [
        "The files are of version 0.2.0, and 0.1.0 is installed: `make setup` installs it.",
        "CHANGELOG.md has the sections 0.2.0 for what is new.",
        "New in CHANGELOG.md since the last merge:",
        "  - New, in two lines.",
    ]
