"""What roles may, and what is set for them: a run does with it, or says what it lacks."""

from __future__ import annotations

from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_sources import ORDERS, refused

READER = """
    do $$ begin create role {role} login password 'reader'; exception when duplicate_object then end $$;
    alter role {role} reset all; alter role {role} connection limit -1;
    grant usage on schema public to {role}; grant pg_read_all_stats to {role};
"""


def test_no_time_out_or_default_of_a_role_reaches_a_run(pipe):
    pipe.do(ORDERS + READER.format(role="limited"))
    pipe.do(
        """
        grant select on orders to limited;
        alter role limited set transaction_timeout = '200ms';
        alter role limited set idle_in_transaction_session_timeout = '50ms';
        alter role limited set statement_timeout = '50ms';
        alter role limited set default_transaction_isolation = serializable;
        alter role limited set default_transaction_deferrable = on;
        """
    )
    pipe.tap |= {
        "user": "limited",
        "password": "reader",
        "chunk_size_mb": 0.05,
        "where": {"public-orders": "pg_sleep(0.0002) is not null"},
    }
    synced = pipe.sync({"public-orders": INCREMENTAL}).ok()
    assert "again" not in synced.tap_log
    assert pipe.rows("select count(*) from raw.orders") == [(5000,)]


def test_a_run_does_with_the_connections_that_its_role_may_have(pipe):
    pipe.do(ORDERS + "create table customers as table orders; alter table customers add primary key (id);")
    pipe.do(READER.format(role="few") + "grant select on all tables in schema public to few")
    streams = {"public-orders": INCREMENTAL, "public-customers": FULL_TABLE}
    catalog = pipe.catalog(streams)
    pipe.tap |= {"user": "few", "password": "reader", "chunk_size_mb": 0.05, "max_parallel": 3}
    for limit in (2, 3):
        pipe.do(f"alter role few connection limit {limit}")
        synced = pipe.sync(catalog).ok()
        assert "(max_parallel): " in synced.tap_log
        assert "is tried again" not in synced.tap_log
        assert pipe.rows("select (select count(*) from raw.orders), (select count(*) from raw.customers)") == [
            (5000, 5000)
        ]
        with pipe.warehouse() as connection:
            connection.execute("drop schema raw cascade")


def test_a_load_does_with_the_connections_that_its_role_may_have(pipe):
    pipe.do(ORDERS)
    pipe.tap["chunk_size_mb"] = 0.02
    with pipe.warehouse() as connection:
        connection.execute(READER.format(role="few_loaders"))
        connection.execute("alter role few_loaders connection limit 2")
        database = connection.info.dbname
        connection.execute(f"grant create on database {database} to few_loaders")
    pipe.target |= {"user": "few_loaders", "password": "reader"}
    synced = pipe.sync({"public-orders": INCREMENTAL}).ok()
    assert "Loading with 1 at once, and not with more (max_parallel): " in synced.target_log
    assert pipe.rows("select count(*) from raw.orders") == [(5000,)]


def test_a_role_that_may_not_ask_which_server_it_is_on_is_told_what_it_lacks(pipe):
    pipe.do(ORDERS + READER.format(role="unknowing") + "grant select on orders to unknowing")
    streams = {"public-orders": INCREMENTAL}
    before = pipe.sync(streams).ok().state
    pipe.tap |= {"user": "unknowing", "password": "reader"}
    pipe.do("revoke execute on function pg_control_system() from public")
    error = refused(pipe.sync(streams, before))
    assert "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO it" in error
    with pipe.warehouse() as connection:
        connection.execute(error[error.index("UPDATE ") :])
    state = pipe.sync(streams, before).ok().state
    pipe.do("grant execute on function pg_control_system() to public")
    error = refused(pipe.sync(streams, state))
    with pipe.warehouse() as connection:
        connection.execute(error[error.index("UPDATE ") :])
    pipe.sync(streams, state).ok()
