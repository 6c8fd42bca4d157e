"""A raw column is widened under views of dbt's role, by a loader without rights to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from dotenv import dotenv_values
from psycopg import errors

from tests.singer.conftest import INCREMENTAL
from tests.singer.roles import apply_roles, as_loader, execute
from tests.singer.test_drift import EXTRAS, MAKE_EXTRAS
from tidemark.inspect.check import warehouse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.checkout import Checkout
    from tests.singer.conftest import Pipe, Synced

STREAMS = {"public-orders": INCREMENTAL}
ORDERS = """
    create table orders (id int primary key, note varchar(10), updated_at timestamptz default now());
    insert into orders select n, 'note ' || n, now() - interval '1 day' from generate_series(1, 3) n;
"""
# as dbt makes them: views on views, materialized views, a developer's with a prefix; and one of the loader in between
VIEWS = """
    set role tidemark_loader;
    create view raw.notes as select id, note from raw.orders;
    grant select on raw.notes to tidemark_transformer;
    set role tidemark_transformer;
    create schema ana_staging;
    alter default privileges in schema intermediate grant select on tables to tidemark_monitor;
    create view staging.stg with (security_barrier) as select id, note, note > 'm' as late from raw.orders;
    create view ana_staging.stg as select n.note, s.late from raw.notes n join staging.stg s using (id);
    create materialized view intermediate."a Sum" as select note, count(*) as n from staging.stg group by note;
    create unique index "by Note" on intermediate."a Sum" (note);
    create materialized view intermediate.unfilled as select note from ana_staging.stg with no data;
    comment on view staging.stg is 'It''s $$ cleaned'; comment on column staging.stg.note is 'as typed';
    comment on materialized view intermediate."a Sum" is 'summed';
    grant select on staging.stg to tidemark_reporter with grant option;
    grant select (late) on ana_staging.stg to public;
    revoke select on intermediate.unfilled from tidemark_monitor;
    reset role;
"""
SEEN = """
    select c.oid::regclass::text, relkind, pg_get_userbyid(relowner), relacl::text, reloptions::text, relispopulated,
        obj_description(c.oid, 'pg_class'), pg_get_viewdef(c.oid),
        (select array_agg(row(attname, attacl, col_description(c.oid, attnum))::text order by attnum)
            from pg_attribute where attrelid = c.oid and attnum > 0),
        (select array_agg(pg_get_indexdef(indexrelid)) from pg_index where indrelid = c.oid)
    from pg_class c where relkind in ('v', 'm') and relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    order by 1
"""


@pytest.fixture
def with_roles(pipe: Pipe, installed: Callable[[str], Checkout]) -> Pipe:
    """A pipe into a loaded warehouse with this project's roles and with views."""
    apply_roles(pipe)
    password = dotenv_values(installed("embedded").root / ".env")["TARGET_POSTGRES_PASSWORD"]
    pipe.target |= {"user": "tidemark_loader", "password": password}
    pipe.do(ORDERS)
    pipe.state = pipe.sync(STREAMS).ok().state
    execute(pipe, VIEWS)
    return pipe


def widened(pipe: Pipe, type_: str = "text") -> Synced:
    pipe.do(
        f"alter table orders alter note type {type_}; update orders set note = 'much longer now', updated_at = now()"
    )
    return pipe.sync(STREAMS, pipe.state)


def test_views_of_dbts_role_are_recreated_unchanged_for_a_loader_without_rights_to_them(with_roles):
    before = with_roles.rows(SEEN)
    assert len(before) == 5
    # the SQL can run again at any time
    apply_roles(with_roles)
    widened(with_roles, "varchar(20)").ok()
    after = with_roles.rows(SEEN)
    same = [[value for place, value in enumerate(view) if place != 7] for view in before]
    assert [[value for place, value in enumerate(view) if place != 7] for view in after] == same
    assert with_roles.rows('select * from intermediate."a Sum" order by 1') == [(f"note {n}", 1) for n in (1, 2, 3)]
    assert with_roles.rows("select distinct note from ana_staging.stg") == [("much longer now",)]
    assert with_roles.rows("select count(*) from tidemark.views_set_aside") == [(0,)]
    # once more: recreated views can be recreated again
    widened(with_roles, "text").ok()
    assert len(with_roles.rows(SEEN)) == 5


def test_a_materialized_view_of_dbts_role_keeps_its_storage_and_statistics(with_roles):
    execute(with_roles, "create access method other_heap type table handler heap_tableam_handler")
    execute(
        with_roles,
        "set role tidemark_transformer; set search_path = marts; "
        + MAKE_EXTRAS.split(";", 1)[1].replace(
            "amount, note from raw.stored", "id * 2 as amount, note from raw.orders"
        ),
    )
    before = with_roles.rows(EXTRAS)
    widened(with_roles).ok()
    assert with_roles.rows(EXTRAS) == before


def test_a_function_on_a_view_of_dbts_role_is_named_and_the_column_is_widened_once_it_is_dropped(with_roles):
    execute(
        with_roles,
        "set role tidemark_transformer; create function staging.f() returns bigint "
        "begin atomic select count(*) from staging.stg; end",
    )
    before = with_roles.rows(SEEN)
    error = widened(with_roles).refused("dependent_object")
    assert "function staging.f() depends on staging.stg" in error
    assert with_roles.rows(SEEN) == before
    execute(with_roles, error[error.index("DROP FUNCTION") :])
    with_roles.sync(STREAMS, with_roles.state).ok()


def test_a_view_of_another_role_is_not_touched_and_the_error_names_it_and_what_to_do(with_roles):
    name = with_roles.rows("select current_database()")[0][0]
    ana = f"{name}_ana"
    execute(
        with_roles,
        f"create role {ana}; create schema ana authorization {ana}; grant usage on schema staging to {ana}; "
        f"grant select on staging.stg to {ana}; set role {ana}; create view ana.mine as select note from staging.stg",
    )
    try:
        before = with_roles.rows(SEEN)
        error = widened(with_roles).refused("dependent_object")
        assert f"ana.mine, which reads raw.orders, belongs to {ana}" in error
        assert with_roles.rows(SEEN) == before
        execute(with_roles, error[error.index("DROP VIEW") :])
        with_roles.sync(STREAMS, with_roles.state).ok()
        execute(with_roles, f"set role {ana}; create view ana.mine as select note from staging.stg")
    finally:
        execute(with_roles, f"drop owned by {ana} cascade; drop role {ana}")


def test_a_warehouse_with_older_roles_says_so_and_works_after_the_update(with_roles):
    execute(with_roles, "drop schema tidemark cascade")
    error = widened(with_roles).refused("dependent_object")
    assert "staging.stg, which reads raw.orders, belongs to tidemark_transformer" in error
    assert "Run the SQL of `tidemark roles warehouse`" in error
    stream = SimpleNamespace(name="public-orders", relation=SimpleNamespace(name="orders"))
    table = warehouse.RawTable("orders", "r", "tidemark_loader", owned=True)
    with as_loader(with_roles) as loader:
        findings = list(warehouse.widening(loader, [table], "raw", [stream]))
        assert {finding.stream for finding in findings} == {"public-orders"}
        assert "`tidemark roles warehouse`" in str(findings[0])
        apply_roles(with_roles)
        assert not list(warehouse.widening(loader, [table], "raw", [stream]))
    with_roles.sync(STREAMS, with_roles.state).ok()
    assert with_roles.rows("select distinct note from staging.stg") == [("much longer now",)]


def test_the_loaders_functions_do_not_let_it_take_over_a_view_or_inject_sql(with_roles):
    execute(
        with_roles,
        "set role tidemark_transformer; create table marts.t (x int); create view marts.v as select x from marts.t",
    )
    aside = "select tidemark.set_view_aside(%s::oid)"
    names = "marts.v", "raw.notes", "staging.stg", 'intermediate."a Sum"'
    theirs, own, below, total = (with_roles.rows(f"select '{name}'::regclass::oid::bigint")[0][0] for name in names)
    with as_loader(with_roles) as loader:
        for oid, error in (
            # a view that does not read the loader's tables
            (theirs, errors.InsufficientPrivilege),
            # a view of another role than the transformer
            (own, errors.InsufficientPrivilege),
            # a view whose dependents are not set aside
            (below, errors.DependentObjectsStillExist),
        ):
            with pytest.raises(error):
                loader.execute(aside, [oid])
            loader.rollback()
        for statement in (
            "insert into tidemark.views_set_aside (name, statements, grants) values ('x', '{drop table t}', '{}')",
            "update tidemark.views_set_aside set statements = '{}'",
            "alter table tidemark.views_set_aside disable trigger all",
            "create or replace function tidemark.put_view_back(aside bigint) returns void language sql as ''",
            "select from marts.t",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                loader.execute(statement)
            loader.rollback()
        loader.execute(aside, [total])
        with pytest.raises(errors.IntegrityConstraintViolation, match=r"was set aside and not put"):
            loader.commit()
        # a policy of the loader runs with the rights of the reading role
        loader.execute(
            "create function raw.runs() returns boolean language plpgsql immutable as "
            "$$ begin raise 'ran as %', current_user; end $$; "
            "alter table raw.orders enable row level security; create policy runs on raw.orders using (raw.runs())"
        )
        unfilled, ana = with_roles.rows(
            "select 'intermediate.unfilled'::regclass::oid::bigint, 'ana_staging.stg'::regclass::oid::bigint"
        )[0]
        loader.execute(aside, [total])
        loader.execute(aside, [unfilled])
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security policy"):
            loader.execute(aside, [ana])
        loader.rollback()
    for role in ("tidemark_reporter", "tidemark_monitor"):
        with with_roles.warehouse() as connection, pytest.raises(errors.InsufficientPrivilege):
            connection.execute(f"set role {role}; select tidemark.set_view_aside({total})")


def test_the_loaders_settings_do_not_change_a_recreated_view(with_roles):
    execute(
        with_roles,
        "set role tidemark_transformer; create view marts.typed as select note, date '2020-02-01' as d, "
        "interval '1 day -2 hours' as i, '\\' as b, ' or 1 = 1 --' as c, 0.30000000000000004::float8 as f "
        "from raw.orders",
    )
    before = with_roles.rows(SEEN)
    (oid,) = with_roles.rows("select 'marts.typed'::regclass::oid::bigint")[0]
    settings = "set datestyle = 'sql, mdy'; set intervalstyle = sql_standard; set extra_float_digits = 0"
    with as_loader(with_roles) as loader:
        loader.execute(settings)
        row = loader.execute("select tidemark.set_view_aside(%s::oid)", [oid]).fetchone()
        loader.execute("set datestyle = 'sql, dmy'; set standard_conforming_strings = off")
        loader.execute("select tidemark.put_view_back(%s)", row)
    assert with_roles.rows(SEEN) == before


def test_row_level_security_that_applies_to_the_loader_is_refused_and_the_advice_works(with_roles):
    execute(
        with_roles,
        "alter table raw.orders enable row level security, force row level security; "
        "create policy few on raw.orders using (id < 2)",
    )
    with_roles.do("update orders set note = 'newer', updated_at = now()")
    error = with_roles.sync(STREAMS, with_roles.state).refused("rows_hidden")
    assert "Row-level security of raw.orders applies to the role that loads it: rows would be missed." in error
    execute(with_roles, error[error.index("ALTER TABLE") :])
    with_roles.sync(STREAMS, with_roles.state).ok()
    assert with_roles.rows("select count(*) from raw.orders where note = 'newer'") == [(3,)]
