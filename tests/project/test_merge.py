"""A release is merged into a project that a user made theirs, and git finds no conflict."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY
from tests.integration.stages import copy_files
from tests.programs import TIDEMARK
from tidemark.project.user_files import is_users

if TYPE_CHECKING:
    from pathlib import Path

STREAMS = """      select:
        - app-invoices.*
      metadata:
        app-invoices: {replication-method: INCREMENTAL, replication-key: changed_at}
"""
JOBS = """  - name: invoices
    tasks:
      - tap-postgres target-postgres dbt-postgres:run
"""
SCHEDULES = """  - name: hourly-invoices
    job: invoices
    interval: "5 * * * *"
"""
NEW = {
    "transform/models/staging/app/_sources.yml": "sources: [{name: app, schema: raw, tables: [{name: invoices}]}]\n",
    "transform/models/staging/app/stg_app_invoices.sql": "select * from {{ source('app', 'invoices') }}\n",
    "transform/models/marts/fct_invoices.sql": "select invoice_id from {{ ref('stg_app_invoices') }}\n",
    "transform/macros/ours.sql": "{% macro ours() %}1{% endmacro %}\n",
    "transform/tests/no_invoice_is_lost.sql": "select 1 where false\n",
    "transform/snapshots/.gitkeep": None,
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone of this release, and the branch of the next one: it touches each file that a release ships."""
    copy_files(tmp_path)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for name, value in (("user.name", "somebody"), ("user.email", "somebody@example.com"), ("core.autocrlf", "false")):
        git(tmp_path, "config", name, value)
    commit(tmp_path, "this release")
    git(tmp_path, "switch", "--quiet", "--create", "upstream")
    shipped = [name for name in git(tmp_path, "ls-files").splitlines() if not is_users(name)]
    directories = {name.rpartition("/")[0] for name in shipped}
    for name in shipped:
        with (tmp_path / name).open("ab") as file:
            file.write(b"# of the next release\n")
    for directory in directories:
        (tmp_path / directory / "of_the_next_release").write_text("a new file\n")
    (tmp_path / "demo" / "shop" / "models" / "marts" / "dim_dates.sql").unlink()
    commit(tmp_path, "the next release")
    git(tmp_path, "switch", "--quiet", "main")
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def commit(root: Path, subject: str) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", subject)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


def make_it_theirs(root: Path) -> None:
    """Edit a clone as a user does."""
    subprocess.run([TIDEMARK, "demo", "remove"], cwd=root, check=True, capture_output=True)
    edit(root / "meltano.yml", "project_id: tidemark", "project_id: invoices")
    edit(root / "extract/extractors.meltano.yml", "      select: []\n", STREAMS)
    edit(
        root / "load/loaders.meltano.yml", "variant: tidemark\n", "variant: tidemark\n      config: {max_parallel: 2}\n"
    )
    edit(root / "orchestrate/jobs.meltano.yml", "schedules:\n", f"{JOBS}schedules:\n{SCHEDULES}")
    edit(root / "transform/dbt_project.yml", "\nmodels:\n", "\nvars:\n  currency: EUR\n\nmodels:\n")
    edit(root / "transform/profiles/profiles.yml", "threads: 4", "threads: 8")
    for name, text in NEW.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            (root / name).unlink()
        else:
            (root / name).write_text(text)
    subprocess.run([TIDEMARK, "schedules"], cwd=root, check=True, capture_output=True)
    (root / ".env").write_text("TAP_POSTGRES_HOST=db.example.com\n")


def test_a_release_that_touches_every_shipped_file_merges_without_a_conflict(repository):
    make_it_theirs(repository)
    commit(repository, "ours")
    edited = git(repository, "diff", "--name-only", "HEAD~1").splitlines()
    assert len(edited) > len(NEW)
    assert [name for name in edited if not is_users(name)] == [], "a user had to edit what a release ships"
    git(repository, "merge", "--quiet", "--no-edit", "upstream")
    for name in edited:
        assert git(repository, "diff", "--name-only", "HEAD^1", "--", name) == "", name
    left = set(git(repository, "diff", "--name-only", "upstream").splitlines())
    assert left <= {*edited}, "all else is as the release has it"


def test_the_files_of_the_user_are_those_that_the_page_names():
    page = (REPOSITORY / "docs" / "how-to" / "upgrading.md").read_text()
    for name in ("meltano.yml", "extract/", "load/", "orchestrate/schedules.json", "transform/", ".env"):
        assert f"`{name}`" in page, name
    assert is_users("transform/models/marts/x.sql")
    assert is_users("orchestrate/jobs.meltano.yml")
    for shipped in ("transform/packages/x/y.sql", "orchestrate/dags/tidemark.py", "orchestrate/airflow.env", "demo/x"):
        assert not is_users(shipped), shipped
