"""A second source database, added exactly as docs/how-to/tables.md says, and every command with two sources."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing, contextmanager

import pytest

from tests import second_source
from tests.integration.stages import make_checkout

SHOP = ("customers", "order_items", "orders", "products")
EXTRACT = "extract/crm.meltano.yml"


@pytest.fixture(scope="module")
def crm():
    """A project with a loaded shop, after following the page; both databases have a table `customers`."""
    with contextmanager(make_checkout)(stage="loaded") as checkout, second_source.database(checkout) as connection:
        added = checkout.tidemark(*second_source.command())
        assert "`tap-crm target-crm` in sync and sync-and-transform" in added
        assert checkout.env["TAP_CRM_PASSWORD"] not in added
        second_source.select_streams(checkout.root)
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


def test_commands_look_at_all_sources_or_at_the_named_one(crm):
    checkout, _ = crm
    assert checkout.tidemark("dsn", "crm").strip().endswith("/crm")
    both, one = checkout.tidemark("status"), checkout.tidemark("status", "--source", "crm")
    assert "source postgres" in both
    assert "postgres/public-orders" in both
    assert "crm/public-contacts" in both
    assert "crm/public-contacts" in one
    assert "public-orders" not in one
    checked = checkout.tidemark("check")
    assert "source crm" in checked
    # crm has a table of the same name, and does not select it
    assert checked.endswith("1 note.\n")
    assert "1 table is not selected: public-customers" in checked
    compared = json.loads(checkout.tidemark("state", "check", "--json"))
    assert {each["fit"] for each in compared} == {"fits"}
    equal = json.loads(checkout.tidemark("reconcile", "crm/public-contacts", "public-orders", "--json"))
    assert {(each["source"], each["stream"]) for each in equal} == {
        ("crm", "public-contacts"),
        ("postgres", "public-orders"),
    }
    assert all(each["equal"] for each in equal)
    assert {each["source"] for each in compared} == {"postgres", "crm"}
    # only one source has this stream
    assert "raw_crm.contacts" in checkout.tidemark("trace", "public-contacts", "11")
    assert "public-contacts: 11 read, 0 new" in checkout.tidemark("backfill", "public-contacts", "--all")
    assert "the sources are postgres, crm" in checkout.refusal("reconcile", "--source", "crn")


@pytest.mark.long
def test_a_stream_of_two_sources_is_read_as_its_own_tap_says_and_needs_its_sources_name(crm):
    """The first tap's metadata names a replication key that does not exist in the second source."""
    checkout, _ = crm
    extractors = checkout.root / EXTRACT
    text = extractors.read_text()
    extractors.write_text(text.replace("[public-contacts.*]", "[public-contacts.*, public-customers.*]"))
    try:
        loaded = run(checkout, "tidemark", "run", "tap-postgres", "target-postgres", "tap-crm", "target-crm")
        assert "crm/public-customers: 1 read, 1 new" in loaded
        assert "postgres/public-customers: " in loaded
        refusal = checkout.refusal("trace", "public-customers", "1")
        assert "a stream of postgres and crm: write postgres/public-customers or crm/public-customers" in refusal
        assert "no updated_at here" in checkout.tidemark("trace", "crm/public-customers", "1", "--json")
        rewound = checkout.tidemark("state", "rewind", "public-contacts", "--source", "crm", "--to", "beginning")
        assert "crm/public-contacts: 20" in rewound
        assert "public-customers" in checkout.tidemark("reconcile", "public-customers", "--source", "crm")
    finally:
        extractors.write_text(text)


@pytest.mark.long
def test_a_comparison_that_meltano_runs_can_be_of_one_source_and_no_other_block_can(crm):
    checkout, source = crm
    source.execute("insert into contacts values (999, 'never loaded', now() - interval '30 days')")
    compared = checkout.run("tidemark", "run", "--source", "crm", "tidemark:reconcile")
    assert compared.returncode != 0
    assert "Source and warehouse differ; repair them: `tidemark reconcile --repair crm/public-contacts`" in (
        compared.stdout + compared.stderr
    )
    assert "public-orders" not in compared.stdout
    of_shop = run(checkout, "tidemark", "run", "--source", "postgres", "tidemark:reconcile")
    assert "public-orders" in of_shop
    assert "contacts" not in of_shop
    source.execute("delete from contacts where id = 999")
    assert "--source is for tidemark:reconcile and tidemark:check, not for tap-crm target-crm: " in checkout.refusal(
        "run", "--source", "crm", "tap-crm", "target-crm"
    )
    assert "There is no source" in checkout.refusal("run", "--source", "cmr", "tidemark:reconcile")


def test_a_source_without_an_address_reads_no_other_database_and_is_refused(crm):
    checkout, _ = crm
    checkout.tidemark("source", "add", "lost")
    extract = checkout.root / "extract/lost.meltano.yml"
    extract.write_text(extract.read_text().replace("select: []", "select: [public-orders.*]"))
    said = "Source lost has no host and no database: set TAP_LOST_HOST and TAP_LOST_DATABASE"
    assert said in checkout.refusal("run", "tap-lost", "target-lost")
    assert checkout.run("meltano", "run", "tap-lost", "target-lost").returncode
    done = checkout.run("tidemark", "check", env={"TAP_LSOT_HOST": "127.0.0.1"})
    assert done.returncode
    assert said in done.stdout
    assert "TAP_LSOT_HOST is set, and no source has it; did you mean TAP_LOST_HOST?" in done.stdout
    assert checkout.rows("warehouse", "select to_regnamespace('raw_lost')") == [(None,)]
    assert said in checkout.tidemark("source", "list", env={"COLUMNS": "200"})
    assert "exists already: tap-lost in extract/lost.meltano.yml" in checkout.refusal("source", "add", "lost")
    checkout.tidemark("source", "retire", "lost")
    assert "lost" not in checkout.tidemark("check")


LAST_BUILDS = """
    select model, max(started_at) from marts._tidemark_model_runs where outcome = 'success' group by model
"""
AWAY = {"TAP_CRM_DATABASE": "gone"}


def built(checkout, before=None) -> set[str]:
    """Return the models that were built since `before`, the times of their builds then."""
    return {model for model, at in checkout.rows("warehouse", LAST_BUILDS) if (before or {}).get(model) != at}


@pytest.fixture(scope="module")
def modelled(crm):
    checkout, _ = crm
    # their builds take a third of the shop's
    checkout.remove_models()
    second_source.add_models(checkout.root, few=True)
    run(checkout, "tidemark", "pipeline")
    assert {"fct_orders", second_source.ON_CRM, second_source.ON_BOTH} <= built(checkout)
    return crm


@pytest.mark.parametrize("command", ["pipeline", pytest.param("run", marks=pytest.mark.long)])
def test_a_source_that_fails_stops_only_the_models_that_stand_on_it_and_they_are_named(modelled, command):
    checkout, source = modelled
    before = dict(checkout.rows("warehouse", LAST_BUILDS))
    source.execute("insert into contacts values (12, 'while it failed', now()) on conflict do nothing")
    blocks = ["tap-crm", "target-crm", "tap-postgres", "target-postgres", "dbt-postgres:run", "dbt-postgres:test"]
    done = checkout.run("tidemark", command, *(blocks if command == "run" else ()), env=AWAY)
    assert done.returncode
    assert "postgres/public-orders" in done.stdout
    assert f"{second_source.ON_BOTH}, {second_source.ON_CRM}" in done.stdout
    assert "because crm was not loaded" in done.stdout
    assert "TAP_CRM_DATABASE" in done.stderr
    if command == "pipeline":
        assert "2 models were not built" in done.stdout
        assert "Load crm failed: " in done.stderr
    since = built(checkout, before)
    assert "fct_orders" in since
    assert not since & {second_source.ON_CRM, second_source.ON_BOTH}


def test_models_that_stand_on_a_table_whose_first_load_has_not_ended_are_left_out_and_named(modelled):
    checkout, _ = modelled
    before = dict(checkout.rows("warehouse", LAST_BUILDS))
    with checkout.connect("warehouse") as connection:
        # as between two snapshots of its first load
        connection.execute("update raw._tidemark_state set key_pending = true where table_name = 'orders'")
        connection.execute("alter table raw.orders drop constraint orders_pkey")
        done = checkout.run("tidemark", "run", "dbt-postgres:run")
        # a build that failed before the load began
        results = checkout.root / ".meltano" / "dbt" / "target" / "run_results.json"
        last = json.loads(results.read_text())
        (on_crm,) = [each for each in last["results"] if each["unique_id"].endswith(f".{second_source.ON_CRM}")]
        of_orders = on_crm["unique_id"].replace(second_source.ON_CRM, "fct_orders")
        last["results"] = [
            {**on_crm, "unique_id": each, "status": "error"} for each in (on_crm["unique_id"], of_orders)
        ]
        results.write_text(json.dumps(last))
        earlier = dict(checkout.rows("warehouse", LAST_BUILDS))
        again = checkout.dbt("retry")
        connection.execute("alter table raw.orders add primary key (order_id)")
        connection.execute("update raw._tidemark_state set key_pending = false where table_name = 'orders'")
    assert done.returncode == 0, done.stderr
    said = "the first load of raw.orders has not ended, and until then the table can have a row twice. Left out: "
    assert re.search(f"{said}.*fct_orders", done.stdout + done.stderr)
    assert "because the first load of a table that they stand on has not ended: " in done.stdout
    assert again.returncode == 0, again.stdout
    assert re.search(f"{said}fct_orders", again.stdout)
    assert built(checkout, earlier) == {second_source.ON_CRM}
    since = built(checkout, before)
    assert second_source.ON_CRM in since
    assert "fct_orders" not in since


@pytest.mark.long
def test_a_part_of_the_models_is_built_and_tested_by_the_sources_that_it_stands_on(modelled):
    checkout, _ = modelled
    parts = "crm,postgres,crm+postgres"
    for part, models, not_these in (
        ("crm", {second_source.ON_CRM}, {second_source.ON_BOTH, "fct_orders"}),
        ("postgres", {"fct_orders", "dim_customers"}, {second_source.ON_BOTH, second_source.ON_CRM}),
        ("crm+postgres", {second_source.ON_BOTH}, {"fct_orders", second_source.ON_CRM}),
    ):
        before = dict(checkout.rows("warehouse", LAST_BUILDS))
        done = run(checkout, "tidemark", "run", "--part", part, "--parts", parts, "dbt-postgres:run")
        assert "succeeded" in done
        since = built(checkout, before)
        assert models <= since
        assert not since & not_these
    tested = run(checkout, "tidemark", "run", "--part", "crm", "--parts", parts, "dbt-postgres:test")
    assert "PASS unique_stg_crm_contacts_contact_id" in tested
    assert "stg_orders" not in tested
    assert "--parts crm does not have it" in checkout.refusal(
        "run", "--part", "postgres", "--parts", "crm", "dbt-postgres:run"
    )


@pytest.mark.long
def test_a_drill_goes_on_from_a_backup_with_all_sources_that_can_be_reached(modelled):
    checkout, source = modelled
    run(checkout, "tidemark", "pipeline")
    checkout.tidemark("backup")
    source.execute("insert into contacts values (13, 'after the backup', now())")
    said = checkout.tidemark("backup", "drill")
    # another test may have loaded one stream more
    assert re.search(r"state: [56] streams fit the warehouse", said), said
    assert "A sync of postgres and crm resumed" in said
    assert "1 of them new" in said
    without = checkout.tidemark("backup", "drill", env=AWAY)
    assert "No sync of crm was tried" in without
    assert "state: 4 streams fit the warehouse" in without


def test_a_retired_source_leaves_the_jobs_and_its_tables_are_dropped_only_by_that_word(crm):
    checkout, _ = crm
    with checkout.connect("warehouse") as connection:
        connection.execute("drop view if exists staging.stg_crm_contacts cascade")
        connection.execute("create view public.reader as select * from raw_crm.contacts")
    # one stream, and then all of the source
    assert "public-contacts is no longer selected" in checkout.tidemark("source", "retire", "crm", "public-contacts")
    (contacts,) = [line for line in checkout.tidemark("status").splitlines() if "crm/public-contacts" in line]
    assert " retired " in f"{contacts} "
    checkout.tidemark("source", "retire", "crm")
    assert checkout.rows("warehouse", "select count(*) > 10 from raw_crm.contacts") == [(True,)]
    status = checkout.tidemark("status", env={"COLUMNS": "200"})
    assert "retired 20" in status
    assert "crm" not in (checkout.root / "orchestrate/jobs.meltano.yml").read_text()
    assert "view reader depends on" in checkout.refusal("source", "retire", "crm", "--drop-tables", "--yes")
    with checkout.connect("warehouse") as connection:
        connection.execute("drop view public.reader")
    dropped = checkout.tidemark("source", "retire", "crm", "--drop-tables", "--yes")
    assert "contacts" in dropped
    assert checkout.rows("warehouse", "select to_regnamespace('raw_crm')") == [(None,)]
    assert "public-orders" in checkout.tidemark("state", "check")


def test_check_and_status_start_no_server_and_write_nothing():
    with contextmanager(make_checkout)() as checkout:

        def files():
            return {path.relative_to(checkout.root) for path in checkout.root.rglob("*") if "logs" not in path.parts}

        before = files()
        assert "not running" in checkout.tidemark("check")
        assert "down" in checkout.tidemark("status")
        assert files() == before
