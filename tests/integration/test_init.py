"""A project that `tidemark init` made: the files of a clone without the code, and the same warehouse."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dotenv import dotenv_values

from tests.conftest import AS_CLONED, REPOSITORY, memory
from tests.integration.checkout import Checkout
from tests.integration.stages import OURS, SCALE, make_checkout
from tests.ports import free_ports
from tests.wheels import build
from tidemark.project import demo_files
from tidemark.project.user_files import is_users
from tidemark.release import contents, definitions, write

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = metadata.version("tidemark")
NEWER = "9.9.9"
# files that the newer release does not have; the second one gets edited
GONE = ("orchestrate/dags/gone.py", "orchestrate/dags/edited.py")
TEMPLATES = {"Makefile", ".gitignore", "README.md", ".github/workflows/project.yml", write.VERSION_FILE}
TEMPLATES |= {*contents.BEGUN_WITH}
RELATIONS = """
    select table_schema || '.' || table_name,
        string_agg(column_name || ' ' || data_type, ', ' order by ordinal_position)
    from information_schema.columns where table_schema in ('raw', 'staging', 'intermediate', 'marts')
    group by 1 order by 1
"""
# what a load adds to a row, and a snapshot to a version: when, and by which transaction
STAMP = re.compile(r"_sdc_(?!deleted_at)|(extracted|loaded)_(at|xid)$|dbt_(updated_at|scd_id|valid_from)$")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """Files with the names of a release's wheels."""
    directory = tmp_path_factory.mktemp("wheels")
    for package in definitions.DISTRIBUTIONS:
        (directory / definitions.wheel(package, VERSION)).touch()
    return directory


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory outside of the repository, which the servers' user can read."""
    parent = Path(tempfile.mkdtemp(prefix="tidemark-test-", dir=memory()))
    parent.chmod(0o755)
    yield parent / "invoices"
    shutil.rmtree(parent)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith((*OURS, "MAKE"))}


def files(root: Path) -> set[str]:
    """Return the files that are for git to keep."""
    ignored = (".meltano/", ".tidemark/", "logs/", f"{definitions.WHEELHOUSE}/")
    names = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(ignored)}


def test_a_new_project_has_a_clones_files_for_the_user_without_the_demo_and_what_a_release_writes(
    directory, wheels, bare_project
):
    said = Checkout(REPOSITORY, environment()).tidemark("init", str(directory), "--wheels", str(wheels))
    assert "make setup" in said
    theirs = {path.relative_to(AS_CLONED).as_posix() for path in AS_CLONED.rglob("*") if path.is_file()}
    theirs.remove("transform/package-lock.yml")
    assert files(directory) == theirs | TEMPLATES | {*write.files(directory)}
    assert not write.changed(directory)
    # before the demo goes: the file of schedules has a digest of this one
    file = bare_project.root / "meltano.yml"
    file.write_text(file.read_text().replace("project_id: tidemark\n", "project_id: invoices\n"))
    demo_files.remove(bare_project)
    for name in theirs:
        assert (directory / name).read_text() == (bare_project.root / name).read_text(), name
        assert is_users(name) or name in write.files(directory), name


def test_what_cannot_become_a_project_is_refused_in_one_line(tmp_path, wheels, checkout):
    def refusal(*arguments: str | Path) -> str:
        return checkout.refusal("init", *map(str, arguments))

    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.txt").touch()
    assert "has files already, such as a.txt" in refusal(tmp_path / "there", "--wheels", wheels)
    assert "is inside of the project" in refusal(checkout.root / "new", "--wheels", wheels)
    assert "--wheels DIR" in refusal(tmp_path / "new")
    assert f"has no tidemark-{VERSION}-py3-none-any.whl" in refusal(tmp_path / "new", "--wheels", tmp_path)
    assert "upgraded by `git pull" in checkout.refusal("upgrade")


def test_a_new_project_reads_the_demo_and_an_edit_of_what_a_release_writes_is_named(directory, wheels):
    made = Checkout(directory, environment())
    Checkout(REPOSITORY, made.env).tidemark("init", str(directory), "--wheels", str(wheels))
    # in place of `make setup`: what is installed here
    (directory / ".venv").symlink_to(REPOSITORY / ".venv")
    for kind in ("extractors", "loaders", "utilities"):
        (directory / ".meltano").mkdir(exist_ok=True)
        (directory / ".meltano" / kind).symlink_to(REPOSITORY / ".meltano" / kind)
    write.link(directory)
    # where nothing answers
    made.env |= {"TARGET_POSTGRES_HOST": "127.0.0.1", "TARGET_POSTGRES_PORT": free_ports(1)[0]}
    assert "tidemark demo add" in made.refusal("pipeline")
    made.tidemark("demo", "add")
    for package in ("demo/shop", "transform/packages/in_place", "transform/packages/tidemark"):
        assert (directory / package / "dbt_project.yml").is_file()
    assert f"The files and what is installed are of version {VERSION}." in made.tidemark("upgrade", "--check")
    (directory / "logging.yaml").write_text("# edited")
    assert "logging.yaml is not as this release has it" in made.tidemark("upgrade", "--check")


class Installed(Checkout):
    """A project with an installation of its own, which programs run from."""

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self._run(self.command(*arguments), env)

    def _run(self, command: list[str], env: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.root,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    def shell(self, *command: str | Path, env: dict[str, str] | None = None) -> str:
        """Run a command that must succeed; return what it prints."""
        done = self._run(list(map(str, command)), env)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


def warehouse(project: Checkout) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Return the columns and the rows of each table and view, without stamps."""
    found = {}
    for name, columns in project.rows("warehouse", RELATIONS):
        # those of Tidemark are about runs
        if "._tidemark_" not in name:
            rows = [row for (row,) in project.rows("warehouse", f"select to_jsonb(t) from {name} as t")]
            kept = [{key: value for key, value in row.items() if not STAMP.search(key)} for row in rows]
            found[name] = (columns, sorted(kept, key=str))
    return found


def assert_same_warehouse(made: Checkout, clone: Checkout) -> None:
    ours, theirs = warehouse(made), warehouse(clone)
    assert {name: columns for name, (columns, _) in ours.items()} == {name: each for name, (each, _) in theirs.items()}
    assert all(ours[name][1] for name in ("raw.orders", "intermediate.customers_snapshot", "marts.fct_sales"))
    differing = {
        (name, key)
        for name, (_, rows) in ours.items()
        for row, their_row in zip(rows, theirs[name][1], strict=True)
        for key in row
        if row[key] != their_row[key]
    }
    assert not differing


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_project_made_by_init_and_a_clone_give_the_same_warehouse_and_pass_the_same_tests(directory, tmp_path):
    release = build(tmp_path / "release", more=dict.fromkeys(GONE, "# of the older release\n"))
    tool = [REPOSITORY / ".venv/bin/uv", "tool", "run", "--from", release / definitions.wheel("tidemark", VERSION)]
    tool += ["--with", release / definitions.wheel("singer-postgres", VERSION)]
    made = Installed(directory, environment())
    for clone in make_checkout(stage="up"):
        clone.tidemark("demo", "load", "--scale", SCALE)
        clone.tidemark("pipeline")
        Installed(directory.parent, made.env).shell(*tool, "tidemark", "init", directory)
        theirs = dotenv_values(clone.root / ".env")
        (directory / ".env").write_text(
            "TAP_POSTGRES_HOST=127.0.0.1\n"
            f"TAP_POSTGRES_PORT={clone.env['TAP_POSTGRES_PORT']}\n"
            f"TAP_POSTGRES_PASSWORD={theirs['TAP_POSTGRES_PASSWORD']}\n"
            f"TARGET_POSTGRES_PORT={free_ports(1)[0]}\n"
        )
        try:
            made.shell("make", "setup")
            for name in contents.LINKED:
                assert (directory / name).is_symlink()
            made.shell(".venv/bin/tidemark", "demo", "add")
            made.shell("make", "pipeline")
            assert_same_warehouse(made, clone)
            assert "already" not in made.shell("make", "setup")
            assert_linted_and_tested(made)
            upgraded(made, build(tmp_path / "newer", version=NEWER))
            made.shell("make", "pipeline")
            assert_same_warehouse(made, clone)
        finally:
            made.kill_servers()


def assert_linted_and_tested(made: Installed) -> None:
    """Lint and test a project by its own targets, and see that both fail where they must."""
    made.shell("git", "init", "--quiet")
    assert "FAIL" not in made.shell("make", "lint")
    assert made.shell("make", "test").endswith("All is in order.\n")
    model, jobs = made.root / "transform/models/marts/odd.sql", made.root / "orchestrate/jobs.meltano.yml"
    before = jobs.read_text()
    model.write_text("SELECT 1 AS one\n")
    jobs.write_text(f"{before}   # indented, and without an end of the line")
    linted = made._run(["make", "lint"], None)
    assert "transform/models/marts/odd.sql" in linted.stdout
    assert linted.returncode
    tested = made._run(["make", "test"], None)
    assert "transform/models/marts/odd.sql has no key that is tested" in tested.stdout
    assert tested.returncode
    model.unlink()
    assert "no new line character at the end of file" in made._run(["make", "lint"], None).stdout
    jobs.write_text(before)


def upgraded(made: Installed, newer: Path) -> None:
    """Upgrade a project by a version number."""
    root = made.root
    assert "copy the release's wheels there" in made.refusal("upgrade", "--to", NEWER)
    for wheel in newer.glob("*.whl"):
        shutil.copy(wheel, root / definitions.WHEELHOUSE)
    (root / GONE[1]).write_text("# mine\n")
    (root / "orchestrate/dags/own.py").write_text("# mine\n")
    users = {name: (root / name).read_bytes() for name in files(root) if is_users(name)}
    said = made.shell(".venv/bin/tidemark", "upgrade", "--to", NEWER)
    assert f"The files and what is installed are of version {NEWER}." in said
    assert (root / write.VERSION_FILE).read_text() == f"{NEWER}\n"
    assert f"-{NEWER}-" in (root / "plugins/loaders/target-postgres--tidemark.lock").read_text()
    assert {name: (root / name).read_bytes() for name in users} == users
    assert f"Removed {GONE[0]}, which this release does not have." in said
    assert f"Kept {GONE[1]}, which this release does not have, because somebody edited it" in said
    assert sorted(path.name for path in (root / "orchestrate/dags").glob("*.py")) == [
        "edited.py",
        "own.py",
        "tidemark.py",
    ]
