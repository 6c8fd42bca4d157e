"""dbt's triggers on raw tables: they log each change that a row can't tell, and are in no load's way."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from dotenv import dotenv_values
from psycopg import errors

from tests import programs
from tests.programs import TARGET
from tests.servers import INSTALLATIONS
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_widening_with_roles import apply_roles, as_loader, execute
from tidemark.inspect.check import warehouse

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Checkout
    from tests.singer.conftest import Pipe

ORDERS = """
    create table orders (id int primary key, customer int, note varchar(10), updated_at timestamptz default now());
    insert into orders select n, n * 10, 'note ' || n, now() - interval '1 day' from generate_series(1, 4) n;
    create table heap (id int, customer int, updated_at timestamptz default now());
    insert into heap values (1, 10), (1, 10), (2, null);
"""
ONCE = {"public-orders": INCREMENTAL}
WHOLE = {"public-orders": FULL_TABLE, "public-heap": FULL_TABLE}
ANY_ROW = (None, None)
STAMP = "_tidemark_loaded_xid = pg_current_xact_id()"
TRIGGERS = """
    select tgname::text, tgenabled::text, pg_get_triggerdef(oid) from pg_trigger
    where tgrelid = 'raw.orders'::regclass and not tgisinternal order by 1
"""


@pytest.fixture(params=[ONCE, pytest.param(WHOLE, marks=pytest.mark.long)], ids=["incremental", "whole"])
def streams(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture
def tracked(pipe: Pipe, installed: Callable[[str], Checkout], streams: dict[str, Any]) -> Pipe:
    """A pipe into a loaded warehouse with this project's roles, and with triggers on raw.orders and raw.heap."""
    apply_roles(pipe)
    password = dotenv_values(installed("embedded").root / ".env")["TARGET_POSTGRES_PASSWORD"]
    pipe.target |= {"user": "tidemark_loader", "password": password}
    pipe.do(ORDERS)
    pipe.state = pipe.sync(streams).ok().state
    for table in (name.replace("public-", "raw.") for name in streams):
        track(pipe, table)
    return pipe


def track(pipe: Pipe, table: str = "raw.orders", columns: str = "{id, customer}") -> None:
    """Create the triggers as dbt does, which has no rights on raw but to read."""
    execute(
        pipe,
        "set session authorization tidemark_transformer; "
        f"select tidemark.track_changes('{table}', '{columns}', interval '7 days')",
    )


def logged(pipe: Pipe, table: str = "orders") -> list[tuple[Any, Any]]:
    """Return the old and the new values of each logged change, as dbt reads them, and forget them."""
    query = f"select old, new from raw._tidemark_changes where model = '{table}' order by old, new"
    with pipe.warehouse() as connection:
        connection.execute("set role tidemark_transformer")
        found = connection.execute(query).fetchall()
        connection.execute("reset role; delete from raw._tidemark_changes")
    return found


def row(number: int, customer: int | None = None) -> dict[str, Any]:
    return {"id": number, "customer": number * 10 if customer is None else customer}


@pytest.mark.parametrize("use_copy", [True, False], ids=["chunks", "records"])
def test_a_load_logs_moved_values_and_no_new_rows_or_other_changes(tracked, streams, use_copy):
    tracked.tap["use_copy"] = use_copy
    tracked.do(
        "insert into orders values (5, 50, 'new'); update orders set note = 'other', updated_at = now() where id = 1; "
        "update orders set customer = 99, updated_at = now() where id = 2"
    )
    tracked.sync(streams, tracked.state if use_copy else None).ok()
    assert tracked.rows("select id, customer, note from raw.orders where id in (1, 2, 5) order by 1") == [
        (1, 10, "other"),
        (2, 99, "note 2"),
        (5, 50, "new"),
    ]
    # the new values are in raw, under this load's transaction
    assert logged(tracked) == [(row(2), None)]


@pytest.mark.parametrize("streams", [WHOLE], ids=["whole"])
@pytest.mark.parametrize("hard", [True, False], ids=["deleted", "marked"])
def test_rows_that_a_full_load_deletes_are_logged(tracked, streams, hard):
    tracked.target["hard_delete"] = hard
    tracked.do("delete from orders where id in (1, 3)")
    tracked.sync(streams, tracked.state).ok()
    assert tracked.rows("select count(*) from raw.orders where _sdc_deleted_at is null") == [(2,)]
    # a marked row has a new transaction
    assert logged(tracked) == ([(row(1), None), (row(3), None)] if hard else [])


@pytest.mark.parametrize("streams", [WHOLE], ids=["whole"])
@pytest.mark.parametrize("hard", [True, False], ids=["deleted", "marked"])
def test_rows_of_an_older_version_of_a_stream_of_records_are_logged(tracked, hard):
    tracked.target["hard_delete"] = hard
    properties = {"id": {"type": "integer"}, "customer": {"type": ["integer", "null"]}}
    stream = {"stream": "public-orders"}
    lines = [
        {"type": "SCHEMA", **stream, "schema": {"properties": properties}, "key_properties": ["id"]},
        *({"type": "RECORD", **stream, "record": row(number), "version": 5} for number in (2, 4, 6)),
        {"type": "ACTIVATE_VERSION", **stream, "version": 5},
    ]
    messages = tracked.directory / "lines"
    messages.write_text("\n".join(map(json.dumps, lines)))
    done = programs.run([TARGET, "--config", tracked.configs()[1], "--input", messages], env=tracked.environment())
    assert done.returncode == 0, done.stderr
    assert tracked.rows("select array_agg(id order by id) from raw.orders where _sdc_deleted_at is null") == [
        ([2, 4, 6],)
    ]
    assert logged(tracked) == ([(row(1), None), (row(3), None)] if hard else [])


@pytest.mark.parametrize("streams", [WHOLE], ids=["whole"])
def test_the_rows_that_a_load_without_a_key_replaces_are_logged(tracked, streams):
    tracked.sync(streams, tracked.state).ok()
    assert logged(tracked, "heap") == []
    tracked.do("update heap set customer = 20 where id = 2")
    tracked.sync(streams, tracked.state).ok()
    assert logged(tracked, "heap") == [
        ({"id": 1, "customer": 10}, None),
        ({"id": 1, "customer": 10}, None),
        ({"id": 2, "customer": None}, None),
    ]


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_a_backfill_logs_what_it_moves(tracked):
    tracked.do("update orders set customer = 77 where id = 3")
    tracked.tap["backfill"] = {"public-orders": {"from": "2000-01-01"}}
    tracked.sync(ONCE, tracked.state).ok()
    assert logged(tracked) == [(row(3), None)]


BY_HAND = {
    "update": ("update raw.orders set note = 'x' where id = 1", [(row(1), row(1))]),
    "update without a stamp": (
        "update raw.orders set note = 'x', _tidemark_loaded_xid = null where id = 1",
        [(row(1), row(1))],
    ),
    "update with a stamp": ("update raw.orders set note = 'x', _tidemark_loaded_xid = pg_current_xact_id()", []),
    "delete": ("delete from raw.orders where id > 2", [(row(3), None), (row(4), None)]),
    "truncate": ("truncate raw.orders", [ANY_ROW]),
    "insert": ("insert into raw.orders (id, customer) values (7, 70)", [(None, row(7))]),
    "insert again": (
        """
        create table raw.o as table raw.orders; delete from raw.orders where id = 1;
        insert into raw.orders select * from raw.o where id = 1
        """,
        [(row(1), None), (None, row(1))],
    ),
    "renamed column": (
        "alter table raw.orders rename customer to client; update raw.orders set client = 0 where id = 1",
        [ANY_ROW],
    ),
    "merged": (
        """
        merge into raw.orders t using (values (1), (2)) s (id) on t.id = s.id
        when matched and s.id = 1 then delete when matched then update set customer = 5
        """,
        [(row(1), None), (row(2), row(2, 5))],
    ),
}


@pytest.mark.parametrize(("statements", "changes"), BY_HAND.values(), ids=BY_HAND)
@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_changes_by_hand_are_logged(tracked, statements, changes):
    execute(tracked, statements)
    assert logged(tracked) == changes


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
@pytest.mark.long
def test_a_value_that_jsonb_can_not_hold_is_loaded_and_any_row_is_taken_for_changed(tracked):
    tracked.do("alter table orders add big text; update orders set updated_at = now()")
    tracked.state = tracked.sync(ONCE, tracked.state).ok().state
    tracked.do("update orders set big = repeat('x', 269000000), customer = 5, updated_at = now() where id = 1")
    tracked.state = tracked.sync(ONCE, tracked.state).ok().state
    # its column is not tracked
    assert logged(tracked) == [(row(1), None)]
    track(tracked, columns="{big}")
    tracked.do("update orders set big = null, updated_at = now() where id = 1")
    tracked.sync(ONCE, tracked.state).ok()
    assert logged(tracked) == [ANY_ROW]
    assert tracked.rows("select big from raw.orders where id = 1") == [(None,)]


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_a_change_with_triggers_off_for_a_replica_is_logged(tracked):
    execute(tracked, "set session_replication_role = replica; delete from raw.orders where id = 1")
    execute(tracked, "set session_replication_role = replica; update raw.orders set customer = 7 where id = 2")
    assert logged(tracked) == [(row(1), None), (row(2), row(2, 7))]


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_values_are_logged_in_one_form_whatever_the_session_sets(tracked):
    execute(
        tracked,
        "create type raw.pair as (x float8, y interval); "
        "alter table raw.orders add f float8, add i interval, add p raw.pair, add a int[], add j json, add n numeric",
    )
    names = ("f", "i", "p", "a", "j", "n")
    track(tracked, columns=f"{{{','.join(names)}}}")
    values = "0.1::float8 + 0.2, '1 day -1 s', (0.1::float8 + 0.2, '1 s'), '{1,NULL}', '{\"b\": 1.0}', 1.00"
    execute(
        tracked,
        "set extra_float_digits = 0; set intervalstyle = sql_standard; "
        f"update raw.orders set (f, i, p, a, j, n) = row({values}), {STAMP} where id = 1; "
        f"update raw.orders set f = null, {STAMP} where id = 1",
    )
    # as dbt reads them
    (same,) = tracked.rows(
        "select (f, i, p, a, n)::text = (0.1::float8 + 0.2, interval '1 day -1 s', "
        "(0.1::float8 + 0.2, interval '1 s')::raw.pair, array[1, null], 1.00)::text "
        "and j::text::jsonb = '{\"b\": 1.0}' "
        "from raw._tidemark_changes, jsonb_populate_record(null::raw.orders, old) where old ->> 'f' is not null"
    )
    assert same == (True,)


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_a_table_with_many_tracked_columns_is_logged(tracked):
    names = [f"c{number}" for number in range(120)]
    execute(tracked, f"alter table raw.orders {', '.join(f'add {name} int' for name in names)}")
    track(tracked, columns=f"{{{','.join(names)}}}")
    execute(tracked, "update raw.orders set c119 = 3 where id = 1")
    ((old, new),) = logged(tracked)
    assert old == row(1) | dict.fromkeys(names)
    assert new == old | {"c119": 3}


# changes of columns


def test_a_tracked_column_is_widened_and_no_change_is_lost(tracked, streams):
    track(tracked, columns="{note}")
    before = tracked.rows(TRIGGERS)
    since = tracked.rows("select columns ->> 'id' from raw._tidemark_tracked where model = 'orders'")
    tracked.do("alter table orders alter note type text, alter customer type bigint")
    tracked.do("update orders set note = 'much longer now', updated_at = now() where id = 1")
    synced = tracked.sync(streams, tracked.state).ok()
    assert "note widened from character varying(10) to text" in synced.target_log
    assert tracked.rows(TRIGGERS) == before
    assert len(before) == 4
    assert logged(tracked) == [(row(1) | {"note": "note 1"}, None)]
    # still in force, and dbt needs no full build
    execute(tracked, "delete from raw.orders where id = 2")
    assert logged(tracked) == [(row(2) | {"note": "note 2"}, None)]
    track(tracked)
    assert tracked.rows("select columns ->> 'id' from raw._tidemark_tracked where model = 'orders'") == since


def test_a_tracked_column_under_a_view_of_dbts_role_is_widened(tracked, streams):
    track(tracked, columns="{note}")
    execute(tracked, "set role tidemark_transformer; create view staging.stg as select id, note from raw.orders")
    before = tracked.rows(TRIGGERS)
    tracked.do("alter table orders alter note type text")
    tracked.do("update orders set note = 'much longer now', updated_at = now()")
    tracked.sync(streams, tracked.state).ok()
    assert tracked.rows(TRIGGERS) == before
    assert tracked.rows("select distinct note from staging.stg") == [("much longer now",)]


def test_a_renamed_column_takes_the_triggers_away_and_the_next_build_creates_them(tracked, streams):
    before = tracked.rows(TRIGGERS)
    tracked.do("alter table orders rename note to remark; update orders set updated_at = now()")
    tracked.state = tracked.sync(streams, tracked.state).ok().state
    # no tracked column
    assert tracked.rows(TRIGGERS) == before
    tracked.do("alter table orders rename customer to client; update orders set client = 0, updated_at = now()")
    tracked.sync(streams, tracked.state).ok()
    assert tracked.rows(TRIGGERS) == []
    assert logged(tracked) == []
    since = tracked.rows("select columns ->> 'id' from raw._tidemark_tracked where model = 'orders'")
    track(tracked, columns="{id, client}")
    assert len(tracked.rows(TRIGGERS)) == 4
    # so models whose last build is older compute all rows
    assert tracked.rows("select columns ->> 'id' from raw._tidemark_tracked where model = 'orders'") > since


def test_a_column_that_gets_a_tracked_ones_name_is_tracked_from_then_on(tracked):
    since = tracked.rows("select columns ->> 'id' from raw._tidemark_tracked where model = 'orders'")
    execute(tracked, "alter table raw.orders rename customer to former; alter table raw.orders add customer int")
    track(tracked)
    assert tracked.rows("select columns ->> 'id' from raw._tidemark_tracked where model = 'orders'") > since
    execute(tracked, "update raw.orders set customer = 3, _tidemark_loaded_xid = pg_current_xact_id() where id = 1")
    assert logged(tracked) == [({"id": 1, "customer": None}, None)]


def test_triggers_that_somebody_disabled_do_not_come_back_as_if_they_had_logged_all(tracked, streams):
    track(tracked, columns="{note}")
    execute(tracked, "alter table raw.orders disable trigger _tidemark_logs_update")
    tracked.do("alter table orders alter note type text")
    tracked.do("update orders set note = 'much longer now', updated_at = now()")
    tracked.sync(streams, tracked.state).ok()
    assert tracked.rows(TRIGGERS) == []


def test_a_users_own_trigger_still_counts_and_dbts_do_not(tracked, streams):
    stream = SimpleNamespace(name="public-orders", relation=SimpleNamespace(name="orders"))
    table = warehouse.RawTable("orders", "r", "tidemark_loader", owned=True)
    with as_loader(tracked) as loader:
        assert not list(warehouse.widening(loader, [table], "raw", [stream]))
    execute(
        tracked,
        "create function raw.swallow() returns trigger language plpgsql as 'begin return null; end'; "
        "create trigger _tidemark_logs_swallow before update of note on raw.orders for each row "
        "execute function raw.swallow()",
    )
    with as_loader(tracked) as loader:
        (finding,) = warehouse.widening(loader, [table], "raw", [stream])
        assert "_tidemark_logs_swallow" in str(finding)
    tracked.do("update orders set note = 'newer', updated_at = now()")
    error = tracked.sync(ONCE, tracked.state if streams is ONCE else None)
    assert "(_tidemark_logs_swallow)" in error.target_log


# rights


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_the_function_tracks_tables_of_the_loader_alone(tracked):
    execute(
        tracked,
        "create table raw.others (id int, x xid8); grant select on raw.others to tidemark_transformer; "
        "set role tidemark_transformer; create table marts.own (id int)",
    )
    for table in ("raw.others", "marts.own", "raw._tidemark_state", "raw._tidemark_changes", "raw._tidemark_tracked"):
        with pytest.raises(errors.InsufficientPrivilege):
            track(tracked, table, "{id}")
    for role in ("tidemark_reporter", "tidemark_monitor"):
        with pytest.raises(errors.InsufficientPrivilege):
            execute(tracked, f"set role {role}; select tidemark.track_changes('raw.orders', '{{id}}', '1 day')")
    assert tracked.rows("select array_agg(model) from raw._tidemark_tracked") == [(["orders"],)]


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_nobody_else_writes_to_the_log(tracked):
    for role in ("tidemark_transformer", "tidemark_monitor"):
        for statements in (
            "insert into raw._tidemark_changes (model) values ('orders')",
            "delete from raw._tidemark_changes",
            "update raw._tidemark_tracked set columns = '{}'",
            # with the loader's function on a table of one's own
            """
            create temporary table orders (id int); create trigger mine after insert on orders for each row
            execute function raw._tidemark_log_orders('id'); insert into orders values (1)
            """,
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                execute(tracked, f"set role {role}; set default_transaction_read_only = off; {statements}")
    assert logged(tracked) == []


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_the_triggers_run_nothing_of_others_with_the_loaders_rights(tracked):
    execute(
        tracked,
        """
        create role mallory; grant usage on schema raw to mallory; create schema hers authorization mallory;
        create type raw.mood as enum ('low', 'high'); alter table raw.orders add mood raw.mood;
        grant select, update, delete on raw.orders to mallory; alter type raw.mood owner to mallory;
        set role mallory;
        create table hers.calls (who text); grant insert on hers.calls to public; grant usage on schema hers to public;
        create function hers.as_json(raw.mood) returns json language plpgsql as
            'begin insert into hers.calls values (current_user); return null; end';
        create function hers.texteq(text, text) returns bool language plpgsql as
            'begin insert into hers.calls values (current_user); return false; end';
        """,
    )
    execute(
        tracked,
        "create cast (raw.mood as json) with function hers.as_json(raw.mood); set role mallory; "
        "create operator hers.= (function = hers.texteq, leftarg = text, rightarg = text)",
    )
    track(tracked, columns="{mood}")
    execute(
        tracked,
        "set role mallory; set search_path = hers, pg_catalog; update raw.orders set mood = 'low' where id = 1; "
        "delete from raw.orders where id = 1",
    )
    assert logged(tracked) == [
        (row(1) | {"mood": None}, row(1) | {"mood": "low"}),
        (row(1) | {"mood": "low"}, None),
    ]
    assert tracked.rows("select who from hers.calls") == []


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_who_watches_sees_the_size_and_age_of_the_log_and_no_value(tracked):
    execute(tracked, "delete from raw.orders where id = 1")
    for role in ("tidemark_monitor", "tidemark_watcher"):
        execute(
            tracked,
            f"set role {role}; select model, count(*), min(logged_at), pg_total_relation_size('raw._tidemark_changes') "
            "from raw._tidemark_changes group by 1; select columns from raw._tidemark_tracked",
        )
        for column in ("old", "new", "*"):
            with pytest.raises(errors.InsufficientPrivilege):
                execute(tracked, f"set role {role}; select {column} from raw._tidemark_changes")
    # also after the grants of an earlier release
    execute(tracked, "grant select on raw._tidemark_changes to tidemark_monitor")
    apply_roles(tracked)
    with pytest.raises(errors.InsufficientPrivilege):
        execute(tracked, "set role tidemark_monitor; select old from raw._tidemark_changes")


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_a_log_of_another_role_is_refused(tracked):
    execute(
        tracked,
        "create schema lent; grant all on schema lent to tidemark_loader, tidemark_transformer; "
        "create table lent._tidemark_changes (model text); set role tidemark_loader; create table lent.orders (id int)",
    )
    with pytest.raises(errors.InsufficientPrivilege, match="_tidemark_changes or _tidemark_tracked in lent"):
        track(tracked, "lent.orders", "{id}")


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
@pytest.mark.parametrize("schema", ["raw_crm", "o'Neil %s $trigger"])
def test_tables_of_another_source_are_tracked_in_their_own_schema(tracked, schema):
    tracked.target["default_target_schema"] = schema
    tracked.sync(ONCE).ok()
    quoted = f'"{schema}"'
    track(tracked, f"{quoted.replace(chr(39), chr(39) * 2)}.orders")
    execute(tracked, f"delete from {quoted}.orders where id = 1; update {quoted}.orders set _tidemark_loaded_xid = '3'")
    query = f"set role tidemark_transformer; select old, new from {quoted}._tidemark_changes"
    with tracked.warehouse() as connection:
        connection.execute("set role tidemark_transformer")
        assert connection.execute(f"select count(*) from {quoted}._tidemark_tracked").fetchone() == (1,)
        changes = connection.execute(query.split("; ")[1]).fetchall()
    assert (row(1), None) in changes
    assert len(changes) == 4


# trimming


FILL = """
    insert into raw._tidemark_changes (model, xid, old)
    -- older than each transaction of the test
    select 'orders', (n / 10 + 1)::text::xid8, jsonb_build_object('id', n, 'note', repeat('x', 1000))
    from generate_series(0, 2999) n
"""
TRIM = "select tidemark.trim_changes('raw', {}, interval '7 days', {})"
LEFT = "select count(*), min(xid::text::int), max(xid::text::int) from raw._tidemark_changes where xid <= '300'"


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_a_log_that_is_too_large_loses_its_oldest_changes_while_loads_go_on(tracked):
    execute(tracked, FILL)
    with as_loader(tracked) as load, tracked.warehouse() as trimming, as_loader(tracked) as another:
        trimming.autocommit = False
        for connection in (load, trimming, another):
            connection.execute("set lock_timeout = '2s'")
        load.execute("delete from raw.orders where id = 1")
        trimming.execute("set local role tidemark_transformer")
        trimming.execute(TRIM.format("null", 2_000_000))
        # neither waits for the other, until both have committed
        load.execute("delete from raw.orders where id = 2")
        another.execute("delete from raw.orders where id = 3")
        another.commit()
        load.commit()
        trimming.commit()
    ((count, oldest, newest),) = tracked.rows(LEFT)
    assert 800 < count < 1000
    assert (count, newest) == (10 * (301 - oldest), 300)
    # readers that have not read these compute all rows
    trimmed = "select trimmed::text::int from raw._tidemark_tracked"
    assert tracked.rows(trimmed) == [(oldest - 1,)]
    # a log of that size is left alone
    execute(tracked, "set role tidemark_transformer; " + TRIM.format("null", 2_000_000))
    assert tracked.rows(LEFT) == [(count, oldest, newest)]
    assert len(logged(tracked)) == count + 3


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
@pytest.mark.parametrize("busy", [True, False], ids=["in use", "idle"])
def test_a_log_that_all_have_read_is_emptied_without_a_wait(tracked, busy):
    execute(tracked, FILL)
    with as_loader(tracked) as load:
        if busy:
            load.execute("delete from raw.orders where id = 1")
        with tracked.warehouse() as connection:
            connection.execute("set statement_timeout = '5s'")
            connection.execute("set role tidemark_transformer; " + TRIM.format("'301'", 10**9))
        load.commit()
    assert tracked.rows("select trimmed::text::int from raw._tidemark_tracked") == [(300,)]
    assert logged(tracked) == ([(row(1), None)] if busy else [])
    # no file is left of an idle one
    size = "select pg_relation_size('raw._tidemark_changes') > 0"
    assert tracked.rows(size) == [(busy,)]


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_a_log_is_trimmed_for_dbt_alone_and_not_while_a_build_relies_on_it(tracked):
    execute(tracked, FILL)
    for role in ("tidemark_reporter", "tidemark_monitor"):
        with pytest.raises(errors.InsufficientPrivilege):
            execute(tracked, f"set role {role}; " + TRIM.format("'301'", 1))
    with pytest.raises(errors.InsufficientPrivilege, match="marts has no log of changes that belongs to"):
        execute(tracked, "set role tidemark_transformer; " + TRIM.format("'301'", 1).replace("'raw'", "'marts'"))
    with tracked.warehouse() as build:
        build.autocommit = False
        build.execute("select pg_advisory_xact_lock_shared(hashtext('in_place changes'), hashtext('raw'))")
        execute(tracked, "set role tidemark_transformer; " + TRIM.format("'301'", 1))
        assert tracked.rows(LEFT) == [(3000, 1, 300)]
    execute(tracked, "set role tidemark_transformer; " + TRIM.format("'301'", 1))
    assert tracked.rows(LEFT) == [(0, None, None)]


# copies


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_a_dump_of_raw_is_restored_with_its_triggers(tracked, make_pipe):
    clients = INSTALLATIONS["embedded"]
    dump = tracked.directory / "dump.sql"
    subprocess.run(
        [clients / "pg_dump", "--schema=raw", f"--file={dump}", f"--dbname={tracked.warehouse_url}"], check=True
    )
    there = make_pipe()
    apply_roles(there)
    execute(there, "drop schema raw cascade")
    restore = [clients / "psql", "--set=ON_ERROR_STOP=1", "--quiet", f"--file={dump}"]
    subprocess.run([*restore, f"--dbname={there.warehouse_url}"], check=True)
    assert there.rows(TRIGGERS) == tracked.rows(TRIGGERS)
    execute(there, "delete from raw.orders where id = 1")
    assert logged(there) == [(row(1), None)]
    # the table is another one: its log starts anew
    track(there)
    assert there.rows("select relation = 'raw.orders'::regclass from raw._tidemark_tracked") == [(True,)]
