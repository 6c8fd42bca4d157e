"""A source with every odd name and comment, from its catalogs to a tested warehouse, and again after it changed."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.integration.stages import make_checkout
from tests.integration.test_northwind import NORTHWIND
from tests.leaks import secrets
from tests.onboarding import from_catalogs
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
        return write(project, from_catalogs(self.connection, self.source, kept), options=self.options, **more)

    def load(self) -> None:
        reader = psycopg.conninfo.conninfo_to_dict(self.checkout.urls["source"])
        prefix = f"TAP_{self.source.upper()}"
        address = {f"{prefix}_{name.upper()}": reader[name] for name in ("host", "port", "user", "password")}
        done = self.checkout.run("meltano", "run", f"tap-{self.source}", f"target-{self.source}", env=address)
        assert done.returncode == 0, done.stdout + done.stderr

    def dbt(self, command: str, *arguments: str) -> str:
        folders = [f"path:models/{each}/{self.source}" for each in ("staging", "marts")]
        done = self.checkout.dbt(command, "--select", *folders, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def lint(self) -> None:
        """As `make lint` does."""
        models = [f"transform/models/{each}/{self.source}" for each in ("staging", "marts")]
        for command in (
            ("sqlfluff", "lint", "--disable-progress-bar", *models),
            ("yamllint", "--strict", "extract", "load", "transform/models"),
        ):
            done = self.checkout.run(*command)
            assert done.returncode == 0, done.stdout


@contextmanager
def onboarded(source: str, sql: Path):
    with contextmanager(make_checkout)(stage="up") as checkout:
        checkout.urls["source"] = checkout.tidemark("dsn", "source").strip()
        url = psycopg.conninfo.conninfo_to_dict(checkout.urls["source"])
        owner = {**url, "user": "tidemark", "password": secrets(checkout.root)["TIDEMARK_ADMIN_PASSWORD"]}
        with psycopg.connect(**owner, autocommit=True) as connection:
            connection.execute(f"create database {source}")
        with psycopg.connect(**{**owner, "dbname": source}, autocommit=True) as connection:
            connection.execute(sql.read_text())
            connection.execute("grant pg_read_all_data to tidemark_reader")
            yield Onboarded(checkout, connection, source)


def changed(nasty: Onboarded) -> None:
    """Change the source and a model of it, and check what is written, loaded and built again."""
    model = nasty.checkout.root / "transform/models/staging/nasty/stg_nasty__from.sql"
    edited = model.read_text().replace('"to",', '"to",\n        upper("to") as loud,')
    model.write_text(edited)
    nasty.connection.execute("""
        alter table "Other Schema".shipments add note text default 'none', add "Extra Note" text;
        alter table "Other Schema".shipments rename weight to mass;
        alter table "Other Schema"."Line Item" alter c type char(5);
        alter table public."from" add more integer;
        drop table public.no_key;
        delete from public."dotted.name" where "x.y" = 2;
        set session_replication_role = replica;
        insert into "Other Schema".shipments values (gen_random_uuid(), 999, 9, 1, 1, null);
        set session_replication_role = origin
    """)
    again = nasty.write()
    assert {(each.stream, each.kind, each.what) for each in again.tables} == {
        (
            "Other Schema-shipments",
            "changed",
            ("column weight is mass now", "column note is new", "column Extra Note is new"),
        ),
        ("Other Schema-Line Item", "changed", ("column c was character(3) and is character(5)",)),
        ("public-from", "changed", ("column more is new",)),
        ("public-no_key", "gone", ("it is no longer read; stg_nasty__no_key stays until it is removed",)),
    }
    (kept,) = again.with_status(Status.edited)
    assert kept.path == "transform/models/staging/nasty/stg_nasty__from.sql"
    assert "+        more," in kept.diff
    assert model.read_text() == edited
    nasty.load()
    # the marts get other columns
    built = nasty.dbt("build", "--full-refresh")
    # the shipment without its line may have been read after the lines were
    assert "ERROR=0" in built


@pytest.mark.long
def test_a_source_of_odd_names_is_loaded_built_and_tested_and_written_again_when_it_changes():
    with onboarded("nasty", NASTY) as nasty:
        assert {each.status for each in nasty.write().files} == {Status.created}
        nasty.load()
        built = nasty.dbt("build")
        assert "WARN=0 ERROR=0" in built
        assert "dim_nasty__line_item" in built
        assert "fct_nasty__shipments" in built
        assert not nasty.write().changes
        changed(nasty)


@pytest.mark.long
def test_files_of_odd_names_pass_the_linters_and_their_marts_are_built_by_key():
    with onboarded("nasty", NASTY) as nasty:
        nasty.write()
        nasty.lint()
        nasty.load()
        nasty.dbt("build")
        changed(nasty)

        # by key, and then nothing differs from a full build; the lines were read again, so one of them is missing
        nasty.connection.execute("""
            update "Other Schema"."Line Item" set status = 'done' where "orderId" between 5 and 9;
            update "Other Schema".shipments set sent_by = 3 where order_id = 4;
            delete from "Other Schema".shipments where order_id = 7
        """)
        nasty.load()
        assert nasty.write(remove_gone=True).with_status(Status.removed)
        built = nasty.dbt("build")
        assert "stg_nasty__no_key" not in built
        (fact,) = [line for line in built.splitlines() if "OK created sql incremental_by_key model marts.fct" in line]
        assert "[18 keys: 0 new, 15 changed, 3 gone" in fact
        (warned,) = [line for line in built.splitlines() if " WARN " in line]
        assert "WARN 1 tidemark_foreign_key_stg_nasty__shipments_order_id__line_no" in warned
        assert nasty.dbt("run", "--full-refresh").count("[0 new, 0 changed, 0 gone") == 2


@pytest.mark.long
@pytest.mark.skipif(not NORTHWIND.is_file(), reason="needs the Northwind dump; name it in NORTHWIND_SQL")
def test_northwind_is_tested_without_a_warning_and_its_freshness_is_known():
    with onboarded("northwind", NORTHWIND) as northwind:
        northwind.write()
        northwind.lint()
        northwind.load()
        built = northwind.dbt("build")
        assert "WARN=0 ERROR=0" in built
        done = northwind.checkout.dbt("source", "freshness", "--select", "source:raw_northwind")
        assert done.returncode == 0, done.stdout
        assert done.stdout.count("PASS freshness of raw_northwind") == 14
