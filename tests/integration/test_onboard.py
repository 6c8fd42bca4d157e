"""`tidemark onboard` proposes how to read a source that it has never seen, from its catalogs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.stages import make_checkout
from tidemark.onboard import catalog
from tidemark.project.connections import SNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

_SCHEMA = Path(__file__).with_name("nasty_schema.sql")
_MANY = """
    do $$ begin
        for i in 1..1000 loop
            execute format('create table many.t_%s (id int primary key, name text, e_mail text, n numeric,
                updated_at timestamptz not null default now())', i);
        end loop;
    end $$
"""


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    for made in make_checkout(stage="up"):
        with made.connect("source") as connection:
            connection.execute(_SCHEMA.read_text())  # type: ignore[call-overload]
        # a role that may read some tables only; tidemark_reader may read all
        made.env |= {"TAP_POSTGRES_USER": "onboarder", "TAP_POSTGRES_PASSWORD": "secret"}
        yield made


@pytest.fixture(scope="module")
def proposal(checkout: Checkout) -> dict[str, Any]:
    return json.loads(checkout.tidemark("onboard", "--dry-run", "--json"))


def by_table(proposal: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{each['schema']}.{each['table']}": each for each in proposal["tables"]}


def test_each_table_gets_the_method_that_misses_no_row(proposal):
    found = by_table(proposal)
    keys = {name: each["replication_key"] for name, each in found.items() if each["method"] == "INCREMENTAL"}
    assert keys == {
        "Sales Ops.Customer": "Modified Date",
        "public.by_index": "updated_at",
        "public.customer": "updated_at",
        "public.parted": "updated_at",
    }
    questions = {name for name, each in found.items() if each["question"]}
    assert questions == {
        *("hr.customer", "hr.maybe", "hr.some_columns", "public.Order", "public.after_update"),
        *("public.child", "public.disabled", "public.nullable"),
    }
    assert all(found[name]["method"] == "FULL_TABLE" for name in questions)
    assert proposal["timestamp_timezone"] == "UTC"
    # partitions are part of their table
    assert not [name for name in found if name.startswith("public.parted_")]
    assert found["public.by_index"]["key"] == ["a", "b"]


def test_what_is_left_out_says_why(proposal):
    why = {name: each["reason"] for name, each in by_table(proposal).items() if each["method"] == "left out"}
    assert {name: reason.split(":")[0] for name, reason in why.items() if name != "public._tidemark_x"} == {
        "public.closed": "onboarder may not read it; the missing grants are listed",
        "public.customer_view": "a view",
        "public.no_columns": "it has no columns",
        "public.remote": "a foreign table",
        "public.secret": "row-level security may hide rows from onboarder",
        "public.totals": "a materialized view",
        "vault.gold": "onboarder may not use schema vault; the missing grants are listed",
    }
    assert 'GRANT USAGE ON SCHEMA "vault" TO "onboarder";' in proposal["missing_grants"]
    assert 'GRANT SELECT ("shut") ON "public"."some_closed" TO "onboarder";' in proposal["missing_grants"]


def test_columns_and_names_that_would_stop_a_load_are_solved(proposal):
    found = by_table(proposal)
    assert list(found["public.customer"]["left_out_columns"]) == ["search"]
    assert list(found["public.customer"]["offered_columns"]) == ["shout", "picture"]
    assert list(found["public.odd"]["left_out_columns"]) == ["_sdc_sequence", "_tidemark_loaded_xid"]
    assert list(found["public.some_closed"]["left_out_columns"]) == ["shut"]
    assert (found["hr.customer"]["pair"], found["hr.customer"]["raw_schema"]) == ("postgres_hr", "raw_postgres_hr")
    assert proposal["pairs"] == {"postgres_hr": "raw_postgres_hr"}
    assert found["public.Order"]["model"] == "stg_postgres__order"
    models = [each["model"] for each in found.values() if each["model"]]
    assert len(set(models)) == len(models)


def test_personal_data_is_found_and_no_value_of_it_leaves_the_server(proposal, checkout):
    found = by_table(proposal)
    masks = {mask["column"]: mask["mask"] for mask in found["public.customer"]["masks"]}
    assert masks == {
        "first_name": "null",
        "last_name": "redact",
        "email": "sha256",
        "phone": "sha256",
        "birth_date": "null",
        "picture": "null",
        "contact": "sha256",
    }
    # by the shape of its values; and by the foreign key to a masked column
    assert [mask["why"] for mask in found["public.customer"]["masks"] if mask["column"] == "contact"] == [
        "an e-mail address, by its values: 100% of a sample have that shape"
    ]
    assert [mask["column"] for mask in found["public.Order"]["masks"]] == ["customer_email"]
    assert found["public.email_template"]["masks"] == []
    assert not any(each["masks_confirmed"] for each in found.values())
    shown = checkout.tidemark("onboard", "--dry-run")
    assert "@example.com" not in json.dumps(proposal) + shown
    assert "postgres into raw and raw_postgres_hr" in shown


def test_a_choice_is_taken_and_a_second_proposal_is_the_same(proposal, checkout):
    assert json.loads(checkout.tidemark("onboard", "--dry-run", "--json")) == proposal
    options = ("--tables", "hr.*,public.customer_view", "--incremental", "hr.maybe=updated_at", "--masks")
    found = by_table(json.loads(checkout.tidemark("onboard", "--dry-run", "--json", *options)))
    assert {name: each["method"] for name, each in found.items()} == {
        "hr.customer": "FULL_TABLE",
        "hr.maybe": "INCREMENTAL",
        "hr.some_columns": "FULL_TABLE",
        "public.customer_view": "FULL_TABLE",
    }
    assert found["hr.customer"]["masks_confirmed"]


REFUSALS = {
    "nothing to ask on": ((), "no terminal"),
    "another source": (("crm", "--dry-run"), "no source 'crm'"),
    "no such table": (("--dry-run", "--tables", "nothing"), "'nothing' matches no table"),
    "no such schema": (("--dry-run", "--schemas", "nothing"), "no table in 'nothing'"),
    "no such column": (("--dry-run", "--incremental", "hr.maybe=nothing"), "has no column nothing"),
    "no choice": (("--dry-run", "--incremental", "hr.maybe"), "write TABLE=COLUMN"),
}


@pytest.mark.parametrize(("arguments", "why"), REFUSALS.values(), ids=REFUSALS)
def test_what_can_not_be_done_is_one_clear_line(checkout, arguments, why):
    assert why in checkout.refusal("onboard", *arguments)


class _Counted(psycopg.Cursor[Any]):
    count = 0

    def execute(self, *arguments: Any, **more: Any) -> Any:
        _Counted.count += 1
        return super().execute(*arguments, **more)


def test_a_thousand_tables_take_no_more_queries_than_three(checkout):
    with checkout.connect("source") as connection:
        connection.execute("create schema many")
        connection.execute(_MANY)  # type: ignore[call-overload]
        connection.cursor_factory = _Counted
        counts = []
        for schema, tables in (("hr", 3), ("many", 1000)):
            _Counted.count, began = 0, time.monotonic()
            with connection.transaction():
                connection.execute(SNAPSHOT)
                found = catalog.read(connection, [schema])
            print(f"{tables} tables: {time.monotonic() - began:.2f} s")  # noqa: T201 - for pytest -s
            assert len(found.tables) == tables
            counts.append(_Counted.count)
        connection.execute("drop schema many cascade")
    assert counts[0] == counts[1]
