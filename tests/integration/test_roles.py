"""Rights of the roles: each role may do its work, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dotenv import dotenv_values, unset_key
from psycopg import errors

from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

MONITOR = [
    "select count(*) from raw._tidemark_runs",
    "select count(*) from raw._tidemark_state",
    "select count(*) from raw._tidemark_schema_changes",
    "select count(*) from raw._tidemark_reconciles",
    "select count(*) from marts._tidemark_model_runs",
    "select count(*) from marts._tidemark_models",
    "select model, min(logged_at) from raw._tidemark_changes group by 1",
    "select pg_total_relation_size('raw._tidemark_changes')",
    "select count(xid) from marts._tidemark_changes",
]
TRIM = "select tidemark.trim_changes('raw', null, interval '1 day', 1)"
TRACK = "select tidemark.track_changes('{}', '{{order_id}}', interval '1 day')"
NOT_MONITOR = [
    TRACK.format("raw.orders"),
    TRIM,
    "select old from raw._tidemark_changes",
    "select new from marts._tidemark_changes",
    "select from raw.orders",
    "select from staging.stg_orders",
    "select from marts.fct_sales",
    "delete from raw._tidemark_runs",
    "update raw._tidemark_reconciles set missing = 0",
    "create table raw.new (x int)",
    "create table marts.new (x int)",
    "create schema mine",
]
REPORTER = ["select count(*) from marts.fct_sales", "select count(*) from marts.mart_monthly_sales"]
NOT_REPORTER = [
    TRACK.format("raw.orders"),
    TRIM,
    "select from raw.orders",
    "select from raw._tidemark_runs",
    "select from staging.stg_orders",
    "select from intermediate.int_orders_enriched",
    "delete from marts.fct_sales",
    "create table marts.new (x int)",
    "create schema mine",
]
MAY = {
    "tidemark_loader": [
        "update raw.orders set status = status",
        "create table raw.new (x int)",
        "create schema raw_crm",
    ],
    "tidemark_transformer": [
        "select count(*) from raw.orders",
        "create view staging.new as select * from raw.orders",
        "create schema ana_marts",
        f"{TRACK.format('raw.orders')}; select count(*) from raw._tidemark_changes, raw._tidemark_tracked",
        TRIM,
    ],
    "tidemark_reporter": REPORTER,
    "tidemark_grafana": REPORTER,
    "tidemark_monitor": MONITOR,
    "tidemark_watcher": MONITOR,
}
# the logins of tools that watch, and the variables of their passwords
WATCHING = {"tidemark_watcher": "TIDEMARK_MONITOR_PASSWORD", "tidemark_grafana": "TIDEMARK_REPORTER_PASSWORD"}
GROUPS = {
    "tidemark_watcher": ("tidemark_monitor", MONITOR[0], "0"),
    "tidemark_grafana": ("tidemark_reporter", REPORTER[0], "30s"),
}
MAY_NOT = {
    "tidemark_loader": [
        "select from marts.fct_sales",
        "create table marts.new (x int)",
        "drop view staging.stg_orders",
    ],
    "tidemark_transformer": [
        "update raw.orders set status = 'paid'",
        "delete from raw._tidemark_state",
        "create table raw.new (x int)",
        "drop table raw.orders",
        TRACK.format("marts.fct_sales"),
        TRACK.format("raw._tidemark_state"),
        f"{TRACK.format('raw.orders')}; delete from raw._tidemark_changes",
        f"{TRACK.format('raw.orders')}; drop trigger _tidemark_logs_delete on raw.orders",
    ],
    "tidemark_reporter": NOT_REPORTER,
    "tidemark_grafana": NOT_REPORTER,
    "tidemark_monitor": NOT_MONITOR,
    "tidemark_watcher": NOT_MONITOR,
}


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    for checkout in make_checkout(stage="built"):
        checkout.tidemark("reconcile", "public-products")
        yield checkout


def attempt(project: Checkout, side: str, role: str, statement: str) -> None:
    """Run the statement as `role`, and roll it back."""
    with project.connect(side) as connection:
        connection.autocommit = False
        connection.execute(f"set role {role}")
        connection.execute(statement)
        connection.rollback()


@pytest.mark.parametrize("role", MAY)
def test_a_role_may_do_its_work_and_nothing_else(project, role):
    for statement in MAY[role]:
        attempt(project, "warehouse", role, statement)
    for statement in MAY_NOT[role]:
        with pytest.raises(errors.InsufficientPrivilege):
            attempt(project, "warehouse", role, statement)


def test_tables_created_later_are_covered_too(project):
    attempt(
        project,
        "warehouse",
        "tidemark_transformer",
        "create table marts.later as select 1; set role tidemark_reporter; select from marts.later",
    )
    attempt(
        project,
        "warehouse",
        "tidemark_loader",
        "create schema raw_crm create table later (x int); set role tidemark_transformer; select from raw_crm.later",
    )


def test_the_tap_can_read_and_see_other_transactions_and_can_not_write(project):
    statement = (
        "do $$ begin if exists (select from pg_stat_activity where backend_type = 'client backend' and "
        "xact_start is null and state = 'active') then raise 'blind'; end if; end $$"
    )
    for may in ("select from orders", statement):
        attempt(project, "source", "tidemark_reader", may)
    for may_not in ("update orders set status = 'paid'", "create table new (x int)"):
        with pytest.raises(errors.InsufficientPrivilege):
            attempt(project, "source", "tidemark_reader", may_not)


def log_in(project: Checkout, role: str) -> psycopg.Connection[Any]:
    """Log in as the role, with the password in .env."""
    password = dotenv_values(project.root / ".env")[WATCHING[role]]
    return psycopg.connect(project.tidemark("dsn", "warehouse").strip(), user=role, password=password)


@pytest.mark.parametrize("role", WATCHING)
def test_a_login_for_watching_has_its_groups_rights_and_can_not_write(project, role):
    group, statement, longest = GROUPS[role]
    with log_in(project, role) as connection:
        (own,) = connection.execute(
            "select array_agg(rolname::text) from pg_roles where pg_has_role(current_user, oid, 'member')"
        ).fetchone()
        assert set(own) == {group, role}
        assert connection.execute(statement).fetchone() > (0,)
        assert connection.execute("show statement_timeout").fetchone() == (longest,)
        with pytest.raises(errors.ReadOnlySqlTransaction):
            connection.execute("create temporary table mine ()")


@pytest.mark.parametrize("role", WATCHING)
def test_a_warehouse_older_than_a_login_for_watching_gets_it_at_the_next_start(project, role):
    with project.connect("warehouse") as connection:
        connection.execute(f"drop role {role}")
    unset_key(project.root / ".env", WATCHING[role])
    project.tidemark("up")
    log_in(project, role).close()


def test_each_part_of_a_run_connects_with_its_own_role(project):
    owners = "select distinct tableowner from pg_tables where schemaname = '{}'"
    assert project.rows("warehouse", owners.format("raw")) == [("tidemark_loader",)]
    assert project.rows("warehouse", owners.format("marts")) == [("tidemark_transformer",)]


def test_a_widened_column_is_loaded_and_built_by_separate_roles(project):
    with project.connect("source") as connection:
        connection.execute("alter table order_items alter quantity type bigint")
        connection.execute("update order_items set quantity = 33 where order_item_id = 1")
    project.extract_and_load()
    type_ = (
        "select format_type(atttypid, -1) from pg_attribute where attname = 'quantity' and attrelid = '{}'::regclass"
    )
    for relation in ("raw.order_items", "staging.stg_order_items", "intermediate.int_order_items_enriched"):
        assert project.rows("warehouse", type_.format(relation)) == [("bigint",)]
    project.build("--select", "stg_order_items", "int_order_items_enriched", "fct_sales")
    assert project.rows("warehouse", "select quantity from marts.fct_sales where order_item_id = 1") == [(33,)]
    owners = "select distinct viewowner from pg_views where schemaname in ('staging', 'intermediate')"
    assert project.rows("warehouse", owners) == [("tidemark_transformer",)]


@pytest.mark.long
def test_a_warehouse_of_an_older_release_is_told_to_run_the_roles_sql_and_builds_after_it(project):
    with project.connect("warehouse") as connection:
        connection.execute("drop function tidemark.track_changes")
        connection.execute("drop trigger _tidemark_logs_update on raw.orders")
    # loads go on
    project.extract_and_load()
    done = project.dbt("build", "--select", "fct_orders")
    assert done.returncode == 1
    assert "tidemark_transformer may not call tidemark.track_changes" in done.stdout
    assert "(tidemark roles warehouse)" in done.stdout
    with project.connect("warehouse") as connection:
        connection.execute(project.tidemark("roles", "warehouse").encode())
    project.build("--select", "fct_orders")
    triggers = "select count(*) from pg_trigger where tgrelid = 'raw.orders'::regclass and tgname ~ '^_tidemark_logs_'"
    assert project.rows("warehouse", triggers) == [(4,)]


def test_the_roles_sql_can_be_run_again_and_on_a_users_own_server(project):
    for side in ("source", "warehouse"):
        with project.connect(side) as connection:
            connection.execute(project.tidemark("roles", side).encode())
            connection.execute("create database other")
        with project.connect(side, "other") as connection:
            connection.execute(project.tidemark("roles", side).encode())
            connection.execute("create role owner_of_other createrole login")
