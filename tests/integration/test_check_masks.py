"""`tidemark check` on masks that can't hold, and on those that leave a foreign key without its join."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.checking import broken, check, only, shops, streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    yield from shops()


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ({"public-customers": {"email": "sha256"}}, "set mask_secret (TAP_POSTGRES_MASK_SECRET in .env"),
        pytest.param(
            {"public-customers": {"email": "sha265"}},
            "'sha265' of public-customers.email is no mask; did you mean sha256?",
            marks=pytest.mark.long,
        ),
        ({"public-customers": {"emial": "null"}}, "masks of public.customers name emial, and it has no such column"),
        pytest.param(
            {"public-costumers": {"email": "null"}},
            "masks names public-costumers, which the source does not have; public-cu",
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"public-customers": {"customer_id": "null"}},
            "part of the key, and mask 'null' would make rows",
            marks=pytest.mark.long,
        ),
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


ACCOUNTS = (
    "create table account (email text primary key, country text, phone text, unique (country, phone))",
    (
        "create table login (id int primary key, who text references account, at text, "
        "constraint called foreign key (at, who) references account (country, phone))"
    ),
)
EMAIL = "foreign key login_who_fkey joins public-login.who (not masked) with public-account.email (masked: sha256)"


def masked(masks: dict[str, dict[str, str]], *left_out: str) -> dict[str, str]:
    """Return variables that select both tables without some columns, and mask others."""
    select = ["public-account.*", "public-login.*", *(f"!{each}" for each in left_out)]
    return {
        "TAP_POSTGRES__SELECT": json.dumps(select),
        "TAP_POSTGRES_MASKS": json.dumps({f"public-{table}": each for table, each in masks.items()}),
        "TAP_POSTGRES_MASK_SECRET": "secret",
        "TAP_POSTGRES__METADATA": "{}",
    }


@pytest.mark.parametrize(
    ("masks", "says", "writes"),
    [
        ({"account": {"email": "sha256"}}, EMAIL, "public-login: {who: sha256}"),
        (
            {"login": {"at": "redact"}},
            "foreign key called joins public-login.at (masked: redact) with public-account.country (not masked)",
            "public-login: {at: sha256}, public-account: {country: sha256}",
        ),
        (
            {"account": {"country": "sha256", "phone": "sha256"}, "login": {"at": "null"}},
            (
                "foreign key called joins public-login.at (masked: null) with public-account.country (masked: sha256) "
                "and public-login.who (not masked) with public-account.phone (masked: sha256)"
            ),
            "public-login: {at: sha256, who: sha256}",
        ),
    ],
    ids=["one column", "one of two columns", "two columns, one of them by another mask"],
)
def test_a_foreign_key_that_is_not_masked_alike_is_a_warning_with_what_to_write(checkout, masks, says, writes):
    with broken(checkout, "source", *ACCOUNTS, then=("drop table login, account",)):
        found = only(check(checkout, masked(masks)))
    assert (found["level"], found["stream"], found["source"]) == ("warning", "public-login", "postgres")
    assert found["what"] == (
        f"{says}, so a join of both finds no row: write `{writes}` under `masks` of the tap's `config` in "
        "extract/extractors.meltano.yml, or mask none of them"
    )


@pytest.mark.parametrize(
    "env",
    [
        masked({"account": {"email": "sha256", "phone": "sha256"}, "login": {"who": "sha256"}}),
        masked({"account": {"phone": "sha256"}}, "public-login.who"),
        masked({"account": {"email": "sha256"}}, "public-login.*"),
    ],
    ids=["masked alike", "a column that is not read", "a table that is not read"],
)
def test_a_foreign_key_whose_sides_can_be_joined_or_are_not_both_read_is_in_order(checkout, env):
    with broken(checkout, "source", *ACCOUNTS, then=("drop table login, account",)):
        assert check(checkout, env) == []


def test_a_foreign_key_to_a_partition_counts_as_one_to_its_table(checkout):
    tables = (
        "create table account (email text primary key) partition by range (email)",
        "create table account_all partition of account default",
        "create table login (id int primary key, who text references account_all)",
    )
    with broken(checkout, "source", *tables, then=("drop table login, account",)):
        found = [each for each in check(checkout, masked({"account": {"email": "sha256"}})) if each["level"] != "note"]
    assert only(found)["what"].startswith(EMAIL)
