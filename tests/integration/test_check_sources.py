"""`tidemark check` on a source's tables, its roles and its sessions: each fault with the SQL that fixes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.checking import READER, broken, check, execute, only, quoted, shops, streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

_READER_IS_SOURCE = {"TAP_POSTGRES_USER": READER, "TAP_POSTGRES_PASSWORD": "secret"}


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    yield from shops()


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
