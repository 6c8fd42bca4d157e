"""A release: one version in all files, notes from the changelog, and reproducible wheels."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.wheels import build
from tidemark.release import contents, definitions, write

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = sorted((REPOSITORY / "plugins").glob("*/pyproject.toml"))
VERSIONS = {file.parent.name: tomllib.loads(file.read_text())["project"]["version"] for file in PACKAGES}


def test_all_files_name_the_same_version():
    (version,) = set(VERSIONS.values())
    helm = yaml.safe_load((REPOSITORY / "deploy/helm/values.yaml").read_text())["images"]["airflow"]["tag"]
    wheels = re.findall(r"tidemark_\w+-([\d.]+)-py3", (REPOSITORY / "plugins/singer-postgres/README.md").read_text())
    assert wheels
    assert {helm, *wheels} == {version}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files that a release reads, as they will be on that day."""
    for name in [".ci/release.py", "CHANGELOG.md", *(str(file.relative_to(REPOSITORY)) for file in PACKAGES)]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    changes = (tmp_path / "CHANGELOG.md").read_text()
    (tmp_path / "CHANGELOG.md").write_text(
        changes.replace("## [Unreleased]", "## [Unreleased]\n\n## [9.8.0] - 2026-12-01", 1)
        + "\n\n## [0.0.9] - 2020-01-01\n\n- Long ago.\n"
    )
    for file in tmp_path.glob("plugins/*/pyproject.toml"):
        file.write_text(file.read_text().replace(f'version = "{VERSIONS["tidemark"]}"', 'version = "9.8.0"'))
    return tmp_path


def notes(project: Path, tag: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, project / ".ci" / "release.py", tag]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_the_notes_of_a_release_are_its_section_of_the_changelog(project):
    done = notes(project, "v9.8.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("### Added")
    assert "`make pipeline`" in done.stdout
    assert "Long ago" not in done.stdout


@pytest.mark.parametrize(
    ("tag", "edit", "says"),
    [
        ("v9.8.1", ("CHANGELOG.md", "", ""), "has version 9.8.0 and the tag is 'v9.8.1'"),
        ("v9.8.0", ("plugins/tidemark-dbt/pyproject.toml", "9.8.0", "9.8.1"), "tidemark-dbt/pyproject.toml has"),
        ("v9.8.0", ("CHANGELOG.md", "2026-12-01", "soon"), "nothing under '## [9.8.0] - YYYY-MM-DD'"),
    ],
    ids=["another tag", "a package left behind", "no date"],
)
def test_a_release_that_does_not_match_its_tag_is_refused_in_one_line(project, tag, edit, says):
    path = project / edit[0]
    path.write_text(path.read_text().replace(*edit[1:]))
    done = notes(project, tag)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def hashes(wheels: Path) -> dict[str, str]:
    return {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels.glob("*.whl")}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("copy"))


def test_wheels_hold_code_and_licence_and_are_reproducible(wheels, tmp_path):
    built = hashes(wheels)
    assert len(built) == len(PACKAGES)
    for name in built:
        with ZipFile(wheels / name) as wheel:
            names = wheel.namelist()
        assert not [each for each in names if "test" in each.partition("/")[0]]
        assert [each for each in names if each.endswith("/licenses/LICENSE")]
        assert [each for each in names if each.endswith("/entry.py")] or "singer" in name
    assert hashes(build(tmp_path)) == built


def test_a_wheel_writes_a_projects_files_with_nothing_but_python(wheels, tmp_path):
    wheel = wheels / definitions.wheel("tidemark", VERSIONS["tidemark"])
    (tmp_path / write.VERSION_FILE).write_text(f"{VERSIONS['tidemark']}\n")

    def run() -> list[str]:
        command = [sys.executable, "-S", "-m", "tidemark.release", tmp_path]
        done = subprocess.run(command, env={"PYTHONPATH": str(wheel)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    written = run()
    assert write.files(tmp_path) == {name: (tmp_path / name).read_text() for name in written}
    assert {"plugins/bootstrap.py", "plugins/extractors/tap-postgres--tidemark.lock", ".env.example"} <= {*written}
    (tmp_path / "plugins/bootstrap.py").write_text("edited")
    assert (run(), run()) == (["plugins/bootstrap.py"], [])
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / write.RECORD).write_text(f"{hashlib.sha256(b'old').hexdigest()}  old.txt\n")
    assert run() == [write.RECORD, "Removed old.txt, which this release does not have."]


def test_an_upgrade_removes_only_files_of_the_older_release_that_nobody_edited(tmp_path, monkeypatch):
    root = tmp_path / "project"
    root.mkdir()
    (root / write.VERSION_FILE).write_text("1.2.3\n")
    older = tmp_path / "older"
    older.mkdir()
    (older / "a").write_text("of the release\n")
    names = (
        "deploy/old/a.yml",
        "deploy/old/empty/a.yml",
        "edited.txt",
        "binary.txt",
        "deleted.txt",
        "again.txt",
    )
    shipped = list(contents.written(contents.root()))
    with monkeypatch.context() as patch:
        patch.setattr(contents, "written", lambda _: [*shipped, *((name, older / "a") for name in names)])
        assert {*names, write.RECORD} <= {*write.write(root).written}
    (root / "edited.txt").write_text("mine\n")
    (root / "binary.txt").write_bytes(b"\xff")
    (root / "deleted.txt").unlink()
    own = {"own.txt": "of the release\n", "deploy/old/own.yml": "mine\n"}
    for name, text in own.items():
        (root / name).write_text(text)
    outside = tmp_path / "outside.txt"
    outside.write_text("of the release\n")
    (root / "linked").symlink_to(tmp_path)
    digest = hashlib.sha256(b"of the release\n").hexdigest()
    with (root / write.RECORD).open("a") as record:
        for name in ("../outside.txt", str(outside), "linked/outside.txt", ".", ""):
            record.write(f"{digest}  {name}\n")
        record.write("a merge left this line\n")
    with monkeypatch.context() as patch:
        patch.setattr(contents, "written", lambda _: [*shipped, ("again.txt", older / "a")])
        done = write.write(root)
        assert write.write(root) == ([], [], [])
    assert (sorted(done.removed), sorted(done.kept)) == (
        ["deploy/old/a.yml", "deploy/old/empty/a.yml"],
        ["binary.txt", "edited.txt"],
    )
    assert done.written == [write.RECORD]
    assert [line.partition(",")[0] for line in done.notes()][-1] == "Kept edited.txt"
    assert (root / "edited.txt").read_text() == "mine\n"
    assert {name: (root / name).read_text() for name in own} == own
    assert (root / "again.txt").is_file()
    assert outside.is_file()
    assert not (root / "deploy/old/empty").exists()
