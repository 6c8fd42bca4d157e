"""A warehouse with a full disk, which then has room again."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.shop import assert_raw_equals_source
from tests.singer.conftest import INCREMENTAL
from tests.singer.test_crashes import BIG, assert_equal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOUNT, _UMOUNT = shutil.which("mount"), shutil.which("umount")


@contextmanager
def small_disk(directory: Path, *, mb: int) -> Iterator[None]:
    """Move a directory's content to a file system of that size."""
    if os.geteuid() or not _MOUNT or not _UMOUNT:
        pytest.skip("only root can make a small file system")
    aside = directory.with_name(f"{directory.name}.aside")
    directory.rename(aside)
    directory.mkdir()
    made = subprocess.run(
        [_MOUNT, "-t", "tmpfs", "-o", f"size={mb}m", "tmpfs", directory], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", directory], check=True)
        yield
    finally:
        subprocess.run([_UMOUNT, "--lazy", directory], check=True)
        directory.rmdir()
        aside.rename(directory)


@pytest.mark.long
def test_a_full_disk_stops_the_run_with_one_line_and_the_run_succeeds_once_there_is_room(
    checkout_on_the_systems_postgres,
):
    checkout = checkout_on_the_systems_postgres
    checkout.tidemark("demo", "load", "--scale", "0.03")
    checkout.tidemark("up")
    checkout.tidemark("down")
    directory = checkout.root / ".tidemark" / "postgres" / "warehouse"
    used = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) >> 20
    with small_disk(directory, mb=used + 4):
        try:
            checkout.tidemark("up")
            failed = checkout.run("meltano", "run", "tap-postgres", "target-postgres")
            assert failed.returncode
            assert "Traceback" not in failed.stderr
            # the reason is in the error or in the server's log, which may have no room for it either
            log = (directory / "server.log").read_text()
            assert "Check free disk space" in failed.stderr + log or "No space left on device" in log
            assert "failed" in failed.stderr
            subprocess.run([str(_MOUNT), "-o", f"remount,size={used + 900}m", directory], check=True)
            checkout.tidemark("up")
            checkout.extract_and_load()
            assert_raw_equals_source(checkout)
        finally:
            # otherwise a server would keep running without its disk
            checkout.run("tidemark", "down")


def test_a_full_disk_of_chunk_files_ends_the_run_with_one_line_and_the_next_run_succeeds(pipe):
    pipe.do(BIG)
    pipe.chunks.mkdir()
    with small_disk(pipe.chunks, mb=1):
        assert f"chunk_dir {pipe.chunks} is full" in pipe.sync({"public-orders": INCREMENTAL}).refused("disk_full")
    pipe.sync({"public-orders": INCREMENTAL}).ok()
    assert_equal(pipe)
