"""Where backups are kept and for how long; incomplete and damaged backups and impossible places are refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from dotenv import dotenv_values

from tests import programs
from tests.integration.backups import back_up, backups, copy, listed, locked, newest, waiting
from tests.integration.stages import make_checkout
from tests.singer.test_crashes import wait_for
from tidemark.backup.store import BackupStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A loaded project."""
    yield from make_checkout(stage="loaded")


def is_dump(process: psutil.Process) -> bool:
    """Whether it is a dumping pg_dump, and not one that prints its version."""
    with suppress(psutil.NoSuchProcess):
        return any(word.startswith("--snapshot") for word in programs.command_line(process))
    return False


@pytest.mark.long
def test_a_killed_backup_does_not_count_and_a_good_one_removes_it_after_a_day(project):
    good = listed(project)
    with locked(project, "raw.products", "access exclusive"):
        killed = project.start("backup")
        wait_for(lambda: waiting(project, "raw.products"))
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
    (partial,) = backups(project).glob("*.partial")
    assert listed(project) == good
    yesterday = partial.with_name("tidemark-20260101T000000Z-00000a.partial")
    shutil.copytree(partial, yesterday)
    theirs = partial.with_name("tidemark-notes")
    theirs.mkdir()
    back_up(project)
    assert not yesterday.exists()
    assert partial.exists(), "another backup may still be writing it"
    assert theirs.exists()
    theirs.rmdir()


@pytest.mark.long
def test_a_dump_that_outlives_its_killed_backup_excludes_the_next_backup(project):
    killed = project.start("backup")
    dump: list[psutil.Process] = []

    def dumping() -> bool:
        dump[:] = [each for each in psutil.Process(killed.pid).children(recursive=True) if is_dump(each)]
        return bool(dump)

    wait_for(dumping)
    for each in dump:
        each.suspend()
    good = listed(project)
    killed.kill()
    killed.communicate()
    busy = project.run("tidemark", "backup")
    for each in dump:
        each.kill()
    assert busy.returncode == 75
    assert "is making or restoring a backup" in busy.stderr
    assert listed(project) == good
    wait_for(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in dump))
    back_up(project)


KILLED_IN_UPLOAD = """
import os, signal, sys
from pathlib import Path
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from tidemark.backup import make
from tidemark.backup.store import BackupStore
from tidemark.project.directory import Project

class Elsewhere(DirFileSystem):
    sent = 0
    def put_file(self, *arguments, **options):
        Elsewhere.sent += 1
        if Elsewhere.sent == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        super().put_file(*arguments, **options)

store = BackupStore("memory://elsewhere")
store._files, store._root = Elsewhere(sys.argv[1], LocalFileSystem()), "backups"
make.make(Project.find(), store, make.BackupOptions(2, None, None), print)
"""


@pytest.mark.long
def test_a_backup_killed_during_its_upload_does_not_count(project, tmp_path):
    def upload(until: int) -> int:
        command = [project.root / ".venv" / "bin" / "python", "-c", KILLED_IN_UPLOAD, str(tmp_path), str(until)]
        return subprocess.run(command, cwd=project.root, env=project.env, check=False, capture_output=True).returncode

    files = len([path for path in newest(project).rglob("*") if path.is_file()])
    assert upload(until=files) == -signal.SIGKILL, "all was sent but the manifest"
    assert len(list((tmp_path / "backups").iterdir())) == 1
    assert listed(project, "--from", str(tmp_path / "backups")) == {}
    assert upload(until=0) == 0
    (name,) = listed(project, "--from", f"file://{tmp_path}/backups")
    project.tidemark("backup", "verify", name, "--from", str(tmp_path / "backups"))


def test_a_good_backup_removes_older_ones_but_not_those_of_another_warehouse(project):
    second = newest(project)
    first = copy(second, "tidemark-20260101T000000Z-00000f")
    damaged = copy(second, "tidemark-20260102T000000Z-00000f")
    (damaged / "state.json").unlink()
    foreign = copy(second, "tidemark-20260103T000000Z-00000f", lambda its: its.update(pipeline="prod db:5432/other"))
    before = listed(project)
    assert (
        project.run(
            "tidemark",
            "backup",
            "--keep",
            "1",
            env={"AIRFLOW_POSTGRES_HOST": "127.0.0.1", "AIRFLOW_POSTGRES_PORT": "1"},
        ).returncode
        == 69
    )
    assert listed(project) == before, "nothing is removed after one that failed, and nothing is left of it"
    made = back_up(project, "--keep", "2")
    assert not first.exists()
    assert {made, second, damaged, foreign} <= set(backups(project).iterdir())


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("nosuch://bucket/x", "Protocol not known: nosuch"),
        ("s3://user:secret@bucket/x", "Install s3fs"),
        ("/proc/no/such", "name another place"),
    ],
)
def test_an_impossible_place_is_named_in_one_line_without_its_secret(project, to, said):
    error = project.refusal("backup", "--to", to)
    assert said in error
    assert "secret" not in error
    assert project.logged_code() == "setting_invalid"


def test_airflows_database_that_does_not_answer_ends_a_backup_with_its_code(project):
    away = {"AIRFLOW_POSTGRES_HOST": "127.0.0.1", "AIRFLOW_POSTGRES_PORT": "1"}
    assert "Cannot connect to the airflow database 'airflow' on 127.0.0.1:1" in project.refusal("backup", env=away)
    assert project.logged_code() == "database_unreachable"


@pytest.mark.long
def test_a_role_that_may_not_read_everything_is_told_which_role_may(project):
    with project.connect("warehouse") as connection:
        connection.execute("create table marts.closed (x int); grant all on marts.closed to tidemark_transformer")
    login = dotenv_values(project.root / ".env")
    own = {"TARGET_POSTGRES_HOST": "127.0.0.1", "TARGET_POSTGRES_PASSWORD": str(login["TARGET_POSTGRES_PASSWORD"])}
    assert "TIDEMARK_BACKUP_USER and _PASSWORD" in project.refusal("backup", env=own)
    admin = {"TIDEMARK_BACKUP_USER": "tidemark", "TIDEMARK_BACKUP_PASSWORD": str(login["TIDEMARK_ADMIN_PASSWORD"])}
    assert "Backup tidemark-" in project.tidemark("backup", env={**own, **admin})


def test_a_full_place_is_reported_and_no_partial_backup_is_left(project, tmp_path):
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False).returncode
    ):
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        assert "space" in project.refusal("backup", "--to", str(tmp_path))
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_place_in_memory_returns_what_was_put_there(tmp_path):
    place = BackupStore("memory://somewhere/backups")
    place.prepare()
    assert place.backups() == []
    with place.writing("tidemark-20260101T000000Z-00000c", tmp_path) as directory:
        (directory / "part").mkdir()
        (directory / "part" / "data").write_bytes(b"rows")
        (directory / "manifest.json").write_text("{}")
    assert place.backups() == ["tidemark-20260101T000000Z-00000c"]
    place.remove("tidemark-20260101T000000Z-00000c")
    assert place.backups() == place.unfinished() == []
