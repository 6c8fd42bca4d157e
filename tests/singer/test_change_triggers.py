"""dbt's triggers on raw tables: they log each change that a row can't tell, and are in no load's way."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests import programs
from tests.programs import TARGET
from tests.servers import INSTALLATIONS
from tests.singer.change_triggers import ANY_ROW, ONCE, STAMP, TRIGGERS, WHOLE, found, logged, row, track
from tests.singer.roles import apply_roles, execute


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
    "with triggers off for a replica": (
        """
        set local session_replication_role = replica; delete from raw.orders where id = 1;
        update raw.orders set customer = 7 where id = 2
        """,
        [(row(1), None), (row(2), row(2, 7))],
    ),
}


@pytest.mark.parametrize("streams", [ONCE], ids=["incremental"])
def test_changes_by_hand_are_logged(tracked):
    with tracked.warehouse() as connection:
        for name, (statements, changes) in BY_HAND.items():
            with connection.transaction(force_rollback=True):
                connection.execute(statements.encode())
                assert found(connection) == changes, name


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
    # the table is another one: its log starts over
    track(there)
    assert there.rows("select relation = 'raw.orders'::regclass from raw._tidemark_tracked") == [(True,)]
