"""`tidemark check` for a whole server, the role that loads into it, and poolers in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration import pgbouncer
from tests.integration.checking import READER, SIDES, broken, check, execute, quoted, shops
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    yield from shops()


def test_a_read_only_warehouse_and_one_with_another_encoding_are_errors(checkout):
    env = {"TARGET_POSTGRES_DATABASE": "latin"}
    execute(checkout, "warehouse", "create database latin template template0 encoding 'LATIN1' locale 'C'")
    try:
        execute(checkout, "warehouse", "alter database latin set default_transaction_read_only = on")
        # which gives the roles their rights in this database
        checkout.tidemark("up", env=env)
        encoding, read_only = check(checkout, env)
        assert encoding["fix"] == ["CREATE DATABASE \"latin_utf8\" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';"]
        execute(checkout, "warehouse", *read_only["fix"])
        assert check(checkout, env) == [encoding]
    finally:
        execute(checkout, "warehouse", "drop database latin")


def test_a_source_with_another_encoding_is_reported(checkout):
    execute(checkout, "source", "create database ascii template template0 encoding 'SQL_ASCII' locale 'C'")
    try:
        found = check(checkout, {"TAP_POSTGRES_DATABASE": "ascii"})
        with checkout.connect("source", "ascii") as connection:
            connection.execute("set client_encoding = 'SQL_ASCII'")
            connection.execute(b'create table "caf\xe9" (id int); create table customers (id int, "caf\xe9" int)')
        named = check(checkout, {"TAP_POSTGRES_DATABASE": "ascii"})
    finally:
        execute(checkout, "source", "drop database ascii")
    assert found[0]["level"] == "warning"
    assert "SQL_ASCII" in found[0]["what"]
    assert any("demo load" in finding["what"] for finding in found)
    # tables that the tap leaves out of its catalog, because their name is not UTF-8
    left_out = [finding["what"] for finding in named if "is left out of the catalog" in finding["what"]]
    assert [what.split(" ")[0] for what in left_out] == [r"public.caf\351", "public.customers"]


def test_an_unreachable_side_is_an_error_as_elsewhere(checkout):
    error = checkout.refusal("check", env={"TAP_POSTGRES_HOST": "127.0.0.1", "TAP_POSTGRES_PORT": str(free_port())})
    assert "Cannot connect to the source database" in error
    assert "TAP_POSTGRES_HOST" in error


@pgbouncer.wanted
@pytest.mark.parametrize(
    ("mode", "size", "errors"),
    [("transaction", 5, 1), ("transaction", 1, 1), ("session", 5, 0)],
    ids=["transaction", "transaction-of-one", "session"],
)
def test_a_pooler_that_splits_sessions_is_an_error_and_one_that_does_not_is_not(checkout, mode, size, errors):
    with pgbouncer.pooling(checkout, mode, size=size) as port:
        env = {
            "TARGET_POSTGRES_HOST": "127.0.0.1",
            "TARGET_POSTGRES_PORT": str(port),
            "TARGET_POSTGRES_USER": "tidemark",
        }
        env["TARGET_POSTGRES_PASSWORD"] = pgbouncer.password(checkout, "tidemark")
        found = check(checkout, env)
        # its settings must not stay for the pool's next client
        with pgbouncer.connect(checkout, port, "tidemark", "warehouse") as connection:
            assert connection.execute("show search_path").fetchone() == ('"$user", public',)
    assert [finding["level"] for finding in found] == ["error"] * errors
    assert all("pool_mode = session" in finding["what"] for finding in found)


def test_a_standby_is_a_warning_as_a_source_and_an_error_as_a_warehouse(checkout):
    signals = [checkout.root / ".tidemark" / "postgres" / side / "data" / "standby.signal" for side in SIDES]
    checkout.tidemark("down")
    for signal in signals:
        signal.touch()
    try:
        checkout.tidemark("up")
        source, warehouse = check(checkout)
        assert source["level"] == "warning"
        assert source["fix"][0] == "ALTER SYSTEM SET hot_standby_feedback = on;"
        assert warehouse["level"] == "error"
        assert "read only" in warehouse["what"]
    finally:
        checkout.tidemark("down")
        for signal in signals:
            signal.unlink()
        checkout.tidemark("up")


def test_a_warehouse_role_that_may_not_load_is_told_what_to_grant(checkout):
    role = quoted(READER)
    env = {
        "TARGET_POSTGRES_USER": READER,
        "TARGET_POSTGRES_PASSWORD": "secret",
        "TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA": "landing",
    }
    with broken(
        checkout,
        "warehouse",
        "revoke temporary on database warehouse from public",
        then=(
            f"drop owned by {role} cascade",
            "drop schema if exists landing cascade",
            "grant temporary on database warehouse to public",
        ),
    ):
        no_schema, no_temporary = check(checkout, env)
        assert no_schema["fix"] == [f'GRANT CREATE ON DATABASE "warehouse" TO {role};']
        assert no_temporary["fix"] == [f'GRANT TEMPORARY ON DATABASE "warehouse" TO {role};']
        execute(checkout, "warehouse", *no_schema["fix"], *no_temporary["fix"])
        assert check(checkout, env) == []
        execute(checkout, "warehouse", "create schema landing", "create table landing.orders (order_id int)")
        before = check(checkout, env)
        assert [finding["stream"] for finding in before] == [None, "public-orders"]
        fixes = [statement for finding in before for statement in finding["fix"]]
        assert fixes == [
            f'GRANT USAGE, CREATE ON SCHEMA "landing" TO {role};',
            f'ALTER TABLE "landing"."orders" OWNER TO {role};',
        ]
        execute(checkout, "warehouse", *fixes)
        assert check(checkout, env) == []
