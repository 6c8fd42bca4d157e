"""The log of changes in raw: who may write, read and trim it."""

from __future__ import annotations

import pytest
from psycopg import errors

from tests.singer.change_triggers import ONCE, logged, row, track
from tests.singer.roles import apply_roles, as_loader, execute


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
