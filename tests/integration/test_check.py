"""`tidemark check` names what is broken, at the right level, with SQL that fixes it."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import make_checkout
from tidemark.errors import UsageError
from tidemark.inspect.check import run
from tidemark.inspect.check.finding import Level
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout

Told = dict[str, Any]
SIDES = ("source", "warehouse")
READER = 'the "reader"'
_READER_IS_SOURCE = {"TAP_POSTGRES_USER": READER, "TAP_POSTGRES_PASSWORD": "secret"}


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    yield from shops()


def shops() -> Iterator[Checkout]:
    """Both servers, with the demo shop and roles without rights; each test restores what it breaks."""
    for made in make_checkout(stage="up"):
        made.tidemark("demo", "load", "--scale", "0.001")
        for side in SIDES:
            execute(made, side, f"create role {quoted(READER)} login password 'secret'")
        execute(made, "source", f"grant select on all tables in schema public to {quoted(READER)}")
        yield made


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def execute(checkout: Checkout, side: str, *statements: str) -> None:
    with checkout.connect(side) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


@contextmanager
def broken(checkout: Checkout, side: str, *statements: str, then: tuple[str, ...]) -> Iterator[None]:
    try:
        execute(checkout, side, *statements)
        yield
    finally:
        execute(checkout, side, *then)


def streams(**methods: str | None) -> dict[str, str]:
    """Return variables that select these tables of schema public, each with its replication key, if any."""
    metadata = {
        f"public-{table}": {"replication-method": "INCREMENTAL", "replication-key": key}
        for table, key in methods.items()
        if key
    }
    return {
        "TAP_POSTGRES__SELECT": json.dumps([f"public-{table}.*" for table in methods]),
        "TAP_POSTGRES__METADATA": json.dumps(metadata),
    }


def check(checkout: Checkout, env: dict[str, str] | None = None, *, every: bool = False) -> list[Told]:
    """Return the findings of `tidemark check --json` that are not in order, without starting Meltano each time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            patch.delenv(name)
        for name, value in {**checkout.env, **(env or {})}.items():
            patch.setenv(name, value)
        findings = run.check(Project(checkout.root))
    told = [finding.as_dict() for finding in findings if finding.level is not Level.ok]
    # most of these tests select a few tables of many
    return told if every else [finding for finding in told if "not selected" not in finding["what"]]


def only(found: list[Told]) -> Told:
    assert len(found) == 1, json.dumps(found, indent=2)
    return found[0]


def test_the_demo_shop_is_in_order_and_says_so_in_a_line(checkout):
    printed = checkout.tidemark("check")
    assert "4 streams are in order: public-customers, public-order_items, public-orders, public-products" in printed
    assert "fix:" not in printed
    assert printed.endswith("All is in order.\n")


def test_each_broken_table_is_named_with_sql_that_fixes_it(checkout):
    tables = (
        "create table unkeyed (a int, updated_at timestamptz not null)",
        'create table "Odd name" (id int primary key, "Changed at" timestamptz not null)',
        "create table nullable (id int primary key, updated_at timestamptz)",
        "create index on nullable (updated_at)",
        "create table almost_keyed (a int unique, updated_at timestamptz not null)",
        "create index on almost_keyed (updated_at)",
    )
    names = ("unkeyed", '"Odd name"', "nullable", "almost_keyed")
    env = streams(**{"Odd name": "Changed at"}, unkeyed="updated_at", nullable="updated_at", almost_keyed="updated_at")
    with broken(checkout, "source", *tables, then=tuple(f"drop table {name}" for name in names)):
        before = check(checkout, env)
        levels = sorted((finding["stream"], finding["level"]) for finding in before)
        assert levels == [
            ("public-Odd name", "note"),
            ("public-almost_keyed", "error"),
            ("public-nullable", "note"),
            ("public-unkeyed", "error"),
            ("public-unkeyed", "note"),
        ]
        assert {statement for finding in before for statement in finding["fix"]} == {
            'CREATE INDEX CONCURRENTLY ON "public"."Odd name" ("Changed at");',
            'ALTER TABLE "public"."almost_keyed" ALTER COLUMN "a" SET NOT NULL;',
            'ALTER TABLE "public"."nullable" ALTER COLUMN "updated_at" SET NOT NULL;',
            'ALTER TABLE "public"."unkeyed" ADD COLUMN "id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;',
            'CREATE INDEX CONCURRENTLY ON "public"."unkeyed" ("updated_at");',
        }
        execute(checkout, "source", *(statement for finding in before for statement in finding["fix"]))
        assert check(checkout, env) == []


def test_a_full_table_stream_needs_no_key_and_duplicates_can_be_allowed(checkout):
    with broken(
        checkout,
        "source",
        "create table unkeyed (updated_at timestamptz not null)",
        "create index on unkeyed (updated_at)",
        then=("drop table unkeyed",),
    ):
        assert check(checkout, streams(unkeyed=None)) == []
        allowed = {"TAP_POSTGRES_ALLOW_DUPLICATES": '["public-unkeyed"]'}
        assert only(check(checkout, streams(unkeyed="updated_at") | allowed))["level"] == "note"


def test_deletes_that_incremental_models_would_not_see_are_a_warning(checkout):
    env = streams(customers=None, products="updated_at")
    assert check(checkout, env) == []
    found = only(check(checkout, {**env, "TARGET_POSTGRES_HARD_DELETE": "true"}))
    assert (found["stream"], found["level"]) == ("public-customers", "warning")
    assert "set hard_delete: false" in found["what"]


def test_a_large_table_without_an_index_is_a_warning_and_a_partial_index_does_not_count(checkout):
    with broken(
        checkout,
        "source",
        # large in bytes, not in rows
        "create table large (id int primary key, updated_at timestamptz not null, filling text)",
        "alter table large alter column filling set storage external",
        "insert into large select n, now(), repeat('x', 1000000) from generate_series(1, 70) n",
        "create index on large (id, updated_at)",
        "create index on large (updated_at) where id > 5",
        then=("drop table large",),
    ):
        found = only(check(checkout, streams(large="updated_at")))
        assert found["level"] == "warning"
        assert "MiB" in found["what"]


def test_a_partitioned_table_is_indexed_without_blocking_its_writers(checkout):
    with broken(
        checkout,
        "source",
        "create table parted (id int, updated_at timestamptz not null, primary key (id)) partition by range (id)",
        "create table parted_1 partition of parted for values from (1) to (10)",
        "create table parted_2 partition of parted for values from (10) to (20)",
        then=("drop table parted",),
    ):
        kind, index = check(checkout, streams(parted="updated_at"))
        assert "each partition is read in ranges (2 partitions)" in kind["what"]
        assert index["fix"][0] == 'CREATE INDEX CONCURRENTLY ON "public"."parted_1" ("updated_at");'
        execute(checkout, "source", *index["fix"])
        assert check(checkout, streams(parted="updated_at")) == [kind]
        of_partition = only(check(checkout, streams(parted_1=None)))
        assert of_partition["level"] == "error"
        assert "part of its table" in of_partition["what"]


def test_a_role_that_may_not_read_is_told_what_to_grant(checkout):
    role = quoted(READER)
    with broken(
        checkout,
        "source",
        "create schema closed",
        "create table closed.things (id int primary key)",
        f"grant select on closed.things to {role}",
        f"revoke select on orders from {role}",
        f"grant select (order_id) on orders to {role}",
        "alter table products enable row level security",
        then=("drop schema closed cascade", "alter table products disable row level security"),
    ):
        env = _READER_IS_SOURCE | {
            "TAP_POSTGRES_FILTER_SCHEMAS": '["public", "closed"]',
            "TAP_POSTGRES__SELECT": (
                '["public-orders.order_id", "public-products.*", "closed-*.*", "public-customers.*"]'
            ),
        }
        before = check(checkout, env)
        assert [(finding["stream"], finding["level"], finding["fix"]) for finding in before] == [
            (None, "warning", [f"GRANT pg_read_all_stats TO {role};"]),
            ("closed-things", "error", [f'GRANT USAGE ON SCHEMA "closed" TO {role};']),
            ("public-orders", "error", [f'GRANT SELECT ("updated_at") ON "public"."orders" TO {role};']),
            ("public-products", "error", [f"ALTER ROLE {role} BYPASSRLS;"]),
        ]
        execute(checkout, "source", *(statement for finding in before for statement in finding["fix"]))
        found = only(check(checkout, env))
        assert (found["stream"], found["level"]) == ("public-orders", "note")
        assert "has SELECT on single columns" in found["what"]
    execute(checkout, "source", f"alter role {role} nobypassrls", f"revoke pg_read_all_stats from {role}")


def test_sessions_that_hide_their_transactions_are_reported(checkout):
    with broken(
        checkout,
        "source",
        f"alter role {quoted(READER)} set track_activities = off",
        then=(f"alter role {quoted(READER)} reset track_activities",),
    ):
        found = only(check(checkout))
        assert found["level"] == "warning"
        assert found["fix"] == [f"ALTER ROLE {quoted(READER)} RESET track_activities;"]


def test_types_that_change_are_noted_and_those_that_cannot_travel_are_errors(checkout):
    with broken(
        checkout,
        "source",
        "create type mood as enum ('good', 'bad')",
        "create domain price as numeric(12,2)",
        "create type pair as (a int, b int)",
        "create table odd (id int primary key, tree pg_node_tree, vector gtsvector, mood mood, moods mood[], "
        "price price, pair pair, place regclass, plain numeric(12,2)[], stamps tstzrange)",
        then=("drop table odd", "drop type mood, pair", "drop domain price"),
    ):
        *refused, noted = check(checkout, streams(odd=None))
        assert [finding["what"].split()[1] for finding in refused] == ["tree", "vector"]
        assert all(finding["level"] == "error" for finding in refused)
        assert noted["level"] == "note"
        for part in (
            "mood (enum mood) as text",
            "moods (array of enum mood) as text[]",
            "price (domain price) as numeric(12,2)",
            "pair (composite pair) as text",
            "place (regclass) as text",
        ):
            assert part in noted["what"]
        assert "plain" not in noted["what"]
        assert "stamps" not in noted["what"]
        masks = {"public-odd": dict.fromkeys(["tree", "vector"], "redact")}
        masked = check(checkout, streams(odd=None) | {"TAP_POSTGRES_MASKS": json.dumps(masks)})
        assert masked == [noted], "a masked column is loaded as text, whatever its type"
        # as in Meltano, excluded columns do not count
        deselected = ["public-odd.*", "!public-odd.tree", "!public-odd.vector", "!public-odd.m*", "!public-odd.p*"]
        env = {"TAP_POSTGRES__SELECT": json.dumps([*deselected, "!*.place"]), "TAP_POSTGRES__METADATA": "{}"}
        assert check(checkout, env) == []


def test_types_of_extensions_that_the_warehouse_lacks_are_noted_there(checkout):
    with broken(
        checkout,
        "source",
        "create extension citext",
        "create extension hstore",
        "create table extended (id int primary key, name citext, tags hstore[], more hstore)",
        then=("drop table extended", "drop extension citext", "drop extension hstore"),
    ):
        env = streams(extended=None)
        before = check(checkout, env)
        assert {finding["side"] for finding in before} == {"warehouse"}
        fixes = [statement for finding in before for statement in finding["fix"]]
        assert fixes == ['CREATE EXTENSION "citext";', 'CREATE EXTENSION "hstore";']
        assert "public-extended.tags, public-extended.more" in before[1]["what"]
        with broken(checkout, "warehouse", *fixes, then=("drop extension citext", "drop extension hstore")):
            assert check(checkout, env) == []


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("nothing int", ("error", "has no column changed, its replication key")),
        ("changed json not null", ("error", "no order")),
        ("changed bigint not null", ("note", "not a time")),
        ("changed numeric not null", ("note", "a row that changes but keeps its value is not read again")),
        ("changed uuid not null", ("note", "not a time")),
        ("changed timestamp not null", ("note", "so each run reads the last 12 hours again: set timestamp_timezone")),
    ],
    ids=["missing", "without-order", "a-number", "a-decimal", "an-identifier", "a-local-time"],
)
def test_an_unsuitable_replication_key_is_reported(checkout, column, says):
    indexed = ("create index on keyed (changed)",) if says[0] == "note" else ()
    with broken(
        checkout, "source", f"create table keyed (id int primary key, {column})", *indexed, then=("drop table keyed",)
    ):
        found = only(check(checkout, streams(keyed="changed")))
        limited = check(checkout, {**streams(keyed="changed"), "TAP_POSTGRES_START_DATE": "last year"})
    assert found["level"] == says[0]
    assert says[1] in found["what"]
    errors = [finding["what"] for finding in limited if finding["level"] == "error"]
    assert any("start_date is 'last year', not a date or an instant" in error for error in errors)
    doubted = [finding for finding in limited if "start_date does not limit it" in finding["what"]]
    assert len(doubted) == (says[0] == "note" and "timestamp" not in column)


def test_a_time_zone_that_is_set_ends_the_note_and_a_date_of_the_business_is_warned_of(checkout):
    tables = (
        "create table shipments (id int primary key, shipped_on timestamp not null, changed timestamp not null)",
        "create index on shipments (shipped_on)",
        "create index on shipments (changed)",
    )
    zone = {"TAP_POSTGRES_TIMESTAMP_TIMEZONE": "UTC"}
    with broken(checkout, "source", *tables, then=("drop table shipments",)):
        assert check(checkout, {**streams(shipments="changed"), **zone}) == []
        found = only(check(checkout, {**streams(shipments="shipped_on"), **zone}))
    assert found["level"] == "warning"
    assert "shipped_on sounds like a date of the business" in found["what"]


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ({"public-customers": {"email": "sha256"}}, "set mask_secret (TAP_POSTGRES_MASK_SECRET in .env"),
        (
            {"public-customers": {"email": "sha265"}},
            "'sha265' of public-customers.email is no mask; did you mean sha256?",
        ),
        ({"public-customers": {"emial": "null"}}, "masks of public.customers name emial, and it has no such column"),
        (
            {"public-costumers": {"email": "null"}},
            "masks names public-costumers, which the source does not have; public-cu",
        ),
        ({"public-customers": {"customer_id": "null"}}, "part of the key, and mask 'null' would make rows"),
    ],
    ids=["no secret", "a misspelt mask", "a misspelt column", "a misspelt stream", "a key"],
)
def test_a_mask_that_can_not_hold_is_one_line_from_the_check_and_from_the_run(checkout, masks, says):
    env = {**streams(customers=None), "TAP_POSTGRES_MASKS": json.dumps(masks)}
    found = only(check(checkout, env))
    assert (found["level"], says in found["what"]) == ("error", True), found["what"]
    run = checkout.run("tidemark", "run", "tap-postgres", "target-postgres", env=env)
    assert run.returncode
    (error,) = run.stderr.strip().splitlines()
    assert says in error


def test_tables_that_nothing_reads_and_those_without_a_rule_of_freshness_are_noted(checkout):
    found = only(check(checkout, streams(customers=None), every=True))
    assert (found["level"], found["what"]) == (
        "note",
        "3 tables are not selected: public-order_items, public-orders, public-products",
    )
    left_out = {"TAP_POSTGRES__SELECT": '["public-customers.*", "!public-order*.*", "!public-products.*"]'}
    assert check(checkout, {**streams(customers=None), **left_out}, every=True) == []


def test_xml_is_noted_where_the_warehouse_was_built_without_it(checkout):
    with broken(checkout, "source", "create table paged (id int primary key, page xml)", then=("drop table paged",)):
        found = check(checkout, streams(paged=None))
        with checkout.connect("warehouse") as connection:
            built_with = connection.execute(
                "select count(*) from pg_config where setting like '%with-libxml%'"
            ).fetchone()
        assert [each["what"] for each in found] == (
            [] if built_with != (0,) else ["its server was built without XML, so public-paged.page will become text"]
        )


def test_selection_follows_meltanos_rules_and_names_what_matches_nothing(checkout):
    env = {
        "TAP_POSTGRES__SELECT": json.dumps(["*.*", "!public-order*.*", "public-ordres.*", "public-customers.emial"]),
        "TAP_POSTGRES__METADATA": json.dumps(
            {
                "public-*": {"replication-method": "INCREMENTAL", "replication-key": "updated_at"},
                "public-supplier": {"replication-method": "FULL_TABLE"},
            }
        ),
    }
    done = checkout.run("tidemark", "check", "--json", env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("error: An error above")
    findings = json.loads(done.stdout)
    assert "2 streams are in order: public-customers, public-products" in [each["what"] for each in findings]
    found = {(each["stream"], each["level"]) for each in findings if each["level"] != "ok"}
    assert found == {("public-ordres", "error"), ("public-customers", "warning"), ("public-supplier", "warning")}


def test_views_are_read_in_full_and_need_a_configured_key_otherwise(checkout):
    with broken(checkout, "source", "create view recent as select * from orders", then=("drop view recent",)):
        assert "is a view" in only(check(checkout, streams(recent=None)))["what"]
        env = streams(recent="updated_at")
        levels = [finding["level"] for finding in check(checkout, env)]
        assert levels == ["note", "error"]
        metadata = json.loads(env["TAP_POSTGRES__METADATA"])
        metadata["public-recent"]["table-key-properties"] = ["order_id"]
        assert only(check(checkout, env | {"TAP_POSTGRES__METADATA": json.dumps(metadata)}))["level"] == "note"


def test_a_table_that_the_tap_refuses_is_reported_with_the_taps_message(checkout):
    many = ", ".join(f"c{number} bool" for number in range(1592))
    wide = ", ".join(f"c{number} bigint not null default 0" for number in range(1000))
    tables = (
        f"create table many (id int primary key, {many})",
        f"create table wide (id int primary key, {wide})",
        "create table bare ()",
        "create table heir () inherits (orders)",
        "create table unproven (id int, updated_at timestamptz not null)",
        "create unique index on unproven (id)",
        "create index on unproven (updated_at)",
        "create table deferred (id int primary key deferrable, updated_at timestamptz not null)",
        "create index on deferred (updated_at)",
        "create table down (id int generated by default as identity (increment -1) primary key)",
    )
    names = ("many", "wide", "bare", "heir", "unproven", "deferred", "down")
    env = streams(
        **dict.fromkeys(["many", "wide", "bare"]),
        **dict.fromkeys(["heir", "unproven", "deferred"], "updated_at"),
        down="id",
    )
    with broken(checkout, "source", *tables, then=tuple(f"drop table {name}" for name in names)):
        execute(checkout, "source", "alter table unproven add constraint known not null id not valid")
        found = {each["stream"]: each for each in check(checkout, env) if each["level"] == "error"}
        assert "has 1,593 selected columns, and the warehouse adds 8" in found["public-many"]["what"]
        assert "take 8,208 bytes or more of a row" in found["public-wide"]["what"]
        assert "has no column to read" in found["public-bare"]["what"]
        assert "inherits from public.orders, whose primary key (order_id) does not hold" in found["public-heir"]["what"]
        assert found["public-heir"]["fix"] == ['ALTER TABLE "public"."heir" ADD PRIMARY KEY ("order_id");']
        assert found["public-unproven"]["fix"] == ['ALTER TABLE "public"."unproven" VALIDATE CONSTRAINT "known";']
        assert "counts down, so new rows come below the bookmark" in found["public-down"]["what"]
        assert "public-deferred" not in found
        execute(checkout, "source", *(each for name in ("heir", "unproven") for each in found[f"public-{name}"]["fix"]))
        found = {each["stream"] for each in check(checkout, env) if each["level"] == "error"}
        assert found == {"public-many", "public-wide", "public-bare", "public-down"}


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TAP_POSTGRES__SELECT", '["public-orders.*', "Failed to parse JSON array"),
        ("TAP_POSTGRES__METADATA", '{"public-orders": "INCREMENTAL"}', "`metadata` is"),
    ],
    ids=["select", "metadata"],
)
def test_a_configuration_that_cannot_be_read_is_an_error_with_its_value(checkout, variable, value, says):
    with pytest.raises(UsageError, match=says) as raised:
        check(checkout, {variable: value})
    assert "public-orders" in str(raised.value)
