"""A second source database, added exactly as docs/how-to/tables.md says."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing, contextmanager

import psycopg
import pytest

from tests.integration.conftest import make_checkout
from tests.leaks import secrets
from tests.second_source import recipe

SHOP = ("customers", "order_items", "orders", "products")


@pytest.fixture(scope="module")
def crm():
    """A project with a loaded shop, after following the page; both databases have a table `customers`."""
    with contextmanager(make_checkout)(stage="loaded") as checkout:
        for name, text in recipe().items():
            with (checkout.root / name).open("a") as file:
                file.write(text)
        url = psycopg.conninfo.conninfo_to_dict(checkout.tidemark("dsn", "source").strip())
        owner = {**url, "user": "tidemark", "password": secrets(checkout.root)["TIDEMARK_ADMIN_PASSWORD"]}
        with psycopg.connect(**owner, autocommit=True) as connection:
            connection.execute("create database crm")
        with psycopg.connect(**{**owner, "dbname": "crm"}, autocommit=True) as connection:
            connection.execute("""
                create table contacts (id int primary key, name text, updated_at timestamptz not null);
                insert into contacts select n, 'contact ' || n, now() - interval '1 day' from generate_series(1, 10) n;
                create table customers (id int primary key, note text);
                insert into customers values (1, 'no updated_at here');
                grant select on all tables in schema public to tidemark_reader
            """)
            yield checkout, connection


def run(checkout, *arguments: str):
    done = checkout.run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_second_source_is_loaded_beside_the_first_as_the_documentation_says(crm):
    checkout, source = crm
    shop = "select count(*), max(_tidemark_loaded_xid::text::bigint) from raw.customers"
    before = checkout.rows("warehouse", shop)
    run(checkout, "meltano", "run", "tap-crm", "target-crm")
    contacts = "select count(*), max(name) from raw_crm.contacts"
    assert checkout.rows("warehouse", contacts) == [(10, "contact 9")]
    source.execute("insert into contacts values (11, 'the new one', now())")
    # with the command of make pipeline and Airflow, twice; the second time there is nothing new
    assert "public-contacts: 1 read, 1 new" in run(checkout, "tidemark", "run", "tap-crm", "target-crm")
    assert "public-contacts: 1 read, 0 new" in run(checkout, "tidemark", "run", "tap-crm", "target-crm")
    assert checkout.rows("warehouse", contacts) == [(11, "the new one")]
    # nothing of the first source was read or written, and each source has its own state
    assert checkout.rows("warehouse", shop) == before
    with closing(sqlite3.connect(checkout.root / ".meltano" / "meltano.db")) as database:
        states = dict(database.execute("select state_id, completed_state from state"))
    streams = {name: {*json.loads(state)["singer_state"]["bookmarks"]} for name, state in states.items()}
    assert streams == {
        "dev:tap-postgres-to-target-postgres": {f"public-{table}" for table in SHOP},
        "dev:tap-crm-to-target-crm": {"public-contacts"},
    }


@pytest.mark.long
def test_both_sources_run_in_one_command_and_checks_of_the_first_are_not_confused(crm):
    checkout, _ = crm
    run(checkout, "tidemark", "run", "tap-postgres", "target-postgres", "tap-crm", "target-crm")
    assert "All is in order." in checkout.tidemark("check")
    for command in ("status", "check"):
        assert "contacts" not in checkout.tidemark(command)
    assert "public-orders" in checkout.tidemark("status")
    assert checkout.run("tidemark", "state", "check").returncode == 0


def test_a_table_with_the_first_sources_name_is_read_as_its_own_tap_says(crm):
    """Meltano would add the first tap's metadata, with a replication key that does not exist here."""
    checkout, _ = crm
    extractors = checkout.root / "extract/extractors.meltano.yml"
    text = extractors.read_text()
    extractors.write_text(text.replace("[public-contacts.*]", "[public-contacts.*, public-customers.*]"))
    try:
        assert "public-customers: 1 read, 1 new" in run(checkout, "tidemark", "run", "tap-crm", "target-crm")
    finally:
        extractors.write_text(text)


@pytest.mark.long
def test_streams_that_only_the_inherited_tap_has_are_not_missing_from_the_second_source(crm):
    """With `metadata` written as a mapping, Meltano looks for the first tap's streams too."""
    checkout, _ = crm
    extractors = checkout.root / "extract/extractors.meltano.yml"
    text = extractors.read_text()
    mapping = "metadata: {public-contacts: {replication-method: INCREMENTAL, replication-key: updated_at}}"
    as_mapping, changed = re.subn(r"metadata: '.*'", mapping, text)
    assert changed == 1
    extractors.write_text(as_mapping)
    try:
        assert "succeeded" in run(checkout, "tidemark", "run", "tap-crm", "target-crm")
        # a missing stream that the second tap itself selects is still reported
        extractors.write_text(as_mapping.replace("[public-contacts.*]", "[public-contacts.*, public-gone.*]"))
        assert "public-gone is selected, and the source has no such table" in checkout.refusal(
            "run", "tap-crm", "target-crm"
        )
    finally:
        extractors.write_text(text)
