"""A source with every odd name and comment, from its catalogs to a tested warehouse, and again after it changed."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.conftest import REPOSITORY
from tests.integration.conftest import make_checkout
from tests.integration.test_northwind import NORTHWIND
from tests.leaks import secrets
from tests.onboarding import proposal
from tidemark.onboard.generated import Options
from tidemark.onboard.manifest import Manifest
from tidemark.onboard.meltano_files import MeltanoSource
from tidemark.onboard.write import Status, manifest_path, write
from tidemark.project.directory import Project

NASTY = Path(__file__).with_name("nasty_source.sql")


class Onboarded:
    """A checkout with a source that was onboarded."""

    def __init__(self, checkout, connection, source: str) -> None:
        self.checkout, self.connection, self.source = checkout, connection, source
        self.options = Options(
            marts="enabled",
            meltano=MeltanoSource(**{**vars(MeltanoSource.of(source)), "tap_config": {"database": source}}),
        )

    def write(self, **more):
        project = Project(self.checkout.root)
        kept = Manifest.read(manifest_path(project, self.source)).names()
        return write(project, proposal(self.connection, self.source, kept), options=self.options, **more)

    def load(self) -> None:
        done = self.checkout.run("meltano", "run", f"tap-{self.source}", f"target-{self.source}")
        assert done.returncode == 0, done.stdout + done.stderr

    def dbt(self, command: str, *arguments: str) -> str:
        folders = [f"path:models/{each}/{self.source}" for each in ("staging", "marts")]
        done = self.checkout.dbt(command, "--select", *folders, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def lint(self) -> None:
        root = self.checkout.root
        done = self.checkout.run(
            "sqlfluff",
            "lint",
            "--disable-progress-bar",
            f"transform/models/staging/{self.source}",
            f"transform/models/marts/{self.source}",
        )
        assert done.returncode == 0, done.stdout
        done = self.checkout.run("yamllint", "--strict", "extract", "load", "transform/models")
        assert done.returncode == 0, done.stdout
        assert root


@contextmanager
def onboarded(source: str, sql: Path):
    with contextmanager(make_checkout)(stage="up") as checkout:
        url = psycopg.conninfo.conninfo_to_dict(checkout.tidemark("dsn", "source").strip())
        owner = {**url, "user": "tidemark", "password": secrets(checkout.root)["TIDEMARK_ADMIN_PASSWORD"]}
        with psycopg.connect(**owner, autocommit=True) as connection:
            connection.execute(f"create database {source}")
        with psycopg.connect(**{**owner, "dbname": source}, autocommit=True) as connection:
            connection.execute(sql.read_text())
            connection.execute("grant pg_read_all_data to tidemark_reader")
            yield Onboarded(checkout, connection, source)


def test_a_source_of_odd_names_is_written_loaded_built_and_tested_and_an_edited_file_is_kept():
    with onboarded("nasty", NASTY) as nasty:
        assert {each.status for each in nasty.write().files} == {Status.created}
        nasty.lint()
        nasty.load()
        built = nasty.dbt("build")
        assert "WARN=0" in built
        assert "dim_nasty__user" in built
        assert "fct_nasty__shipments" in built
