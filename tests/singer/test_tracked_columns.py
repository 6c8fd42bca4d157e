"""dbt's triggers on raw tables stay right when columns are widened, renamed or replaced."""

from __future__ import annotations

from types import SimpleNamespace

from tests.singer.change_triggers import ONCE, TRIGGERS, logged, row, track
from tests.singer.roles import as_loader, execute
from tidemark.inspect.check import warehouse


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


def test_columns_are_tracked_whatever_their_names_are(tracked):
    # some are reserved in PL/pgSQL alone
    names = ["by", "begin", "declare", "execute", "foreach", "if", "loop", "strict", "while", "end", 'a "b"', "C"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    execute(tracked, "; ".join(f"alter table raw.orders add column {name} int" for name in quoted))
    track(tracked, columns="{" + ",".join('"' + name.replace('"', '\\"') + '"' for name in names) + "}")
    changes = ", ".join(f"{name} = 1" for name in quoted)
    execute(tracked, f"update raw.orders set {changes}, _tidemark_loaded_xid = pg_current_xact_id() where id = 1")
    assert logged(tracked) == [({**row(1), **dict.fromkeys(names)}, None)]


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
    error = tracked.sync(ONCE, tracked.state if streams == ONCE else None)
    assert "(_tidemark_logs_swallow)" in error.target_log
