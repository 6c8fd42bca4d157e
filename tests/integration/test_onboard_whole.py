"""`tidemark onboard` takes a stranger's database to a tested warehouse in one command, also beside other sources."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout
from tests.leaks import secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = REPOSITORY / "tests/data"
DUMPS = {name: os.environ.get(f"{name.upper()}_SQL") for name in ("pagila", "chinook", "adventureworks", "northwind")}


class Strangers:
    """A checkout with the shop, whose source server has further databases."""

    def __init__(self, checkout) -> None:
        self.checkout = checkout
        self.url = psycopg.conninfo.conninfo_to_dict(checkout.tidemark("dsn", "source").strip())
        self.passwords = secrets(checkout.root)
        checkout.env["COLUMNS"] = "200"

    def connect(self, database: str) -> psycopg.Connection:
        """Connect as the owner."""
        owner = {**self.url, "user": "tidemark", "password": self.passwords["TIDEMARK_ADMIN_PASSWORD"]}
        return psycopg.connect(**{**owner, "dbname": database}, autocommit=True)

    def make(self, name: str, sql: Path, *, grant: bool = True) -> None:
        with self.connect("postgres") as connection:
            connection.execute(f"create database {name}")
        with self.connect(name) as connection:
            connection.execute(sql.read_text())
            if grant:
                connection.execute("grant pg_read_all_data to tidemark_reader")
        self.checkout.env[f"TAP_{name.upper()}_PASSWORD"] = self.passwords["TAP_POSTGRES_PASSWORD"]

    def address(self, name: str) -> list[str]:
        return ["--host", self.url["host"], "--port", self.url["port"], "--database", name]

    def onboard(self, name: str, *options: str) -> str:
        began = time.monotonic()
        done = self.checkout.run("tidemark", "onboard", name, *options)
        print(f"onboard {name} {' '.join(options)}: {time.monotonic() - began:.1f} s")  # noqa: T201 - for pytest -s
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_on_board(self, name: str, said: str, tables: int) -> None:
        """Every table is equal, no test failed, a second onboarding changes nothing, and the files pass the linters."""
        assert f"{tables} of {tables} equal" in said
        assert ", 0 failed." in said
        assert "Nothing would change." in self.onboard(name, "--check")
        models = [f"transform/models/{each}/{name}" for each in ("staging", "marts")]
        there = [each for each in models if (self.checkout.root / each).is_dir()]
        for command in (
            ("sqlfluff", "lint", "--disable-progress-bar", *there),
            ("yamllint", "--strict", "extract", "load", "orchestrate", "transform/models"),
        ):
            done = self.checkout.run(*command)
            assert done.returncode == 0, done.stdout


@contextmanager
def strangers(stage="up") -> Iterator[Strangers]:
    with contextmanager(make_checkout)(stage=stage) as checkout:
        yield Strangers(checkout)


def test_a_database_is_taken_to_a_tested_warehouse_in_one_command_and_stays_yours():
    with strangers() as all_:
        all_.make("music", DATA / "music.sql")
        said = all_.onboard("music", *all_.address("music"), "--yes", "--masks")
        all_.is_on_board("music", said, 11)
        env = (all_.checkout.root / ".env").read_text()
        assert "TAP_MUSIC_MASK_SECRET" in env

        # what is new is found, and said by check too
        with all_.connect("music") as connection:
            connection.execute('create table "New One" (id int primary key); alter table "Album" add x int')
        failed = all_.checkout.run("tidemark", "onboard", "music", "--check")
        assert failed.returncode == 1
        assert "public-New One: new" in failed.stdout
        assert "column x is new" in failed.stdout
        assert "public-New One" in all_.checkout.tidemark("check", "--source", "music")
        model = all_.checkout.root / "transform/models/staging/music/stg_music__album.sql"
        model.write_text(edited := f"{model.read_text()}-- mine\n")
        again = all_.onboard("music", "--yes", "--no-run")
        assert "stg_music__album.sql: left alone" in again
        assert model.read_text() == edited
        # masks that were confirmed stay without the option
        assert "Email: masked" in again.replace("\n", "")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_three_databases_are_on_board_in_one_project_beside_the_shop():
    with strangers("built") as all_:
        expected = {"rentals": 10, "music": 11, "bicycles": 10}
        for name in expected:
            all_.make(name, DATA / f"{name}.sql")
        for name, tables in expected.items():
            said = all_.onboard(name, *all_.address(name), "--yes", "--enable-marts")
            all_.is_on_board(name, said, tables)
        # equal names in several schemas are pairs, which are sources like the others
        listed = json.loads(all_.checkout.tidemark("source", "list", "--json"))
        assert {each["source"] for each in listed} == {
            *("postgres", "rentals", "music", "bicycles", "bicycles_production")
        }
        jobs = (all_.checkout.root / "orchestrate/jobs.meltano.yml").read_text()
        assert jobs.count("tap-bicycles_production target-bicycles_production") == 2
        # all of them together
        done = all_.checkout.run("tidemark", "pipeline")
        assert done.returncode == 0, done.stdout + done.stderr
        compared = json.loads(all_.checkout.tidemark("reconcile", "--json"))
        assert len(compared) == sum(expected.values()) + 4
        assert all(each["equal"] for each in compared)
        found = json.loads(all_.checkout.tidemark("check", "--json"))
        assert [each["what"] for each in found if each["level"] in {"warning", "error"}] == []
        for name in expected:
            assert "Nothing would change." in all_.onboard(name, "--check")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DUMPS)
def test_a_real_database_is_on_board_in_three_minutes(name):
    if not DUMPS[name]:
        pytest.skip(f"needs a dump; name it in {name.upper()}_SQL")
    with strangers() as all_:
        with all_.connect("postgres") as connection:
            connection.execute(f"create database {name}")
        all_.checkout.tidemark(
            *("psql", "source", "-q", "-U", "tidemark", "-d", name, "-f", DUMPS[name]),
            env={"PGPASSWORD": all_.passwords["TIDEMARK_ADMIN_PASSWORD"]},
        )
        with all_.connect(name) as connection:
            connection.execute("grant pg_read_all_data to tidemark_reader")
        all_.checkout.env[f"TAP_{name.upper()}_PASSWORD"] = all_.passwords["TAP_POSTGRES_PASSWORD"]
        began = time.monotonic()
        said = all_.onboard(name, *all_.address(name), "--yes")
        assert time.monotonic() - began < 180
        (equal,) = [line for line in said.splitlines() if " tables loaded, " in line]
        all_.is_on_board(name, said, int(equal.split(" rows of ")[1].split()[0]))


SMALL = """
    create table parent (id int primary key, name text not null);
    create table child (id int primary key, parent_id int not null references parent);
    insert into parent select n, 'parent ' || n from generate_series(1, 50) n;
    insert into child select n, 1 + n % 50 from generate_series(1, 3000) n
"""


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", [".env", "extract/", "Write files", "Load small", "Compare", "Build models", "Test"])
def test_onboarding_that_is_killed_at_any_step_is_completed_by_the_same_command(step, tmp_path):
    (tmp_path / "small.sql").write_text(SMALL)
    with strangers() as all_:
        all_.make("small", tmp_path / "small.sql")
        command = ("onboard", "small", *all_.address("small"), "--yes")
        with all_.checkout.start(*command, env={"PYTHONUNBUFFERED": "1"}) as started:
            for line in started.stdout:
                if line.startswith(step):
                    break
            started.kill()
        # what the killed command started may still be at work, and says so
        deadline = time.monotonic() + 120
        while (done := all_.checkout.run("tidemark", *command)).returncode == os.EX_TEMPFAIL:
            assert time.monotonic() < deadline, done.stderr
            time.sleep(1)
        assert done.returncode == 0, done.stderr
        all_.is_on_board("small", done.stdout, 2)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_role_without_rights_is_told_the_grants(tmp_path):
    (tmp_path / "small.sql").write_text(f"create schema closed; set search_path = closed; {SMALL}")
    with strangers() as all_:
        all_.make("small", tmp_path / "small.sql", grant=False)
        with all_.connect("small") as connection:
            connection.execute("create role nobody_yet login password 'secret'")
        command = ("onboard", "small", *all_.address("small"), "--user", "nobody_yet", "--yes")
        done = all_.checkout.run("tidemark", *command, env={"TAP_SMALL_PASSWORD": "secret"})
        assert done.returncode
        assert 'GRANT USAGE ON SCHEMA "closed" TO "nobody_yet";' in done.stdout
        assert "nobody_yet may read no table of small" in done.stderr
        assert not (all_.checkout.root / "transform/models/staging/small").exists()
