"""Rights and settings of roles: a run works with them, or says what it lacks."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests import programs
from tests.programs import TAP, TARGET
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_sources import ORDERS

READER = """
    do $$ begin create role {role} login password 'reader'; exception when duplicate_object then end $$;
    alter role {role} reset all; alter role {role} connection limit -1;
    grant usage on schema public to {role}; grant pg_read_all_stats to {role};
"""


def test_no_timeout_or_default_of_a_role_affects_a_run(pipe):
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


def test_a_run_works_with_its_roles_connection_limit(pipe):
    pipe.do(ORDERS + "create table customers as table orders; alter table customers add primary key (id);")
    pipe.do(READER.format(role="few") + "grant select on all tables in schema public to few")
    streams = {"public-orders": INCREMENTAL, "public-customers": FULL_TABLE}
    catalog = pipe.catalog(streams)
    pipe.tap |= {"user": "few", "password": "reader", "chunk_size_mb": 0.05, "max_parallel": 3}
    for limit in (2, 3):
        pipe.do(f"alter role few connection limit {limit}")
        synced = pipe.sync(catalog).ok()
        assert "Reading with fewer workers than max_parallel: " in synced.tap_log
        assert "is retried" not in synced.tap_log
        assert pipe.rows("select (select count(*) from raw.orders), (select count(*) from raw.customers)") == [
            (5000, 5000)
        ]
        with pipe.warehouse() as connection:
            connection.execute("drop schema raw cascade")


def test_a_load_works_with_its_roles_connection_limit(pipe):
    pipe.do(ORDERS)
    pipe.tap["chunk_size_mb"] = 0.02
    with pipe.warehouse() as connection:
        connection.execute(READER.format(role="few_loaders"))
        connection.execute("alter role few_loaders connection limit 2")
        database = connection.info.dbname
        connection.execute(f"grant create on database {database} to few_loaders")
    pipe.target |= {"user": "few_loaders", "password": "reader"}
    synced = pipe.sync({"public-orders": INCREMENTAL}).ok()
    assert "Loading with fewer workers: max_parallel=1, error=" in synced.target_log
    assert pipe.rows("select count(*) from raw.orders") == [(5000,)]


def test_a_role_that_may_not_read_the_servers_identity_is_told_the_missing_right(pipe):
    pipe.do(ORDERS + READER.format(role="unknowing") + "grant select on orders to unknowing")
    streams = {"public-orders": INCREMENTAL}
    before = pipe.sync(streams).ok().state
    pipe.tap |= {"user": "unknowing", "password": "reader"}
    pipe.do("revoke execute on function pg_control_system() from public")
    error = pipe.sync(streams, before).refused("other_source")
    assert "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO it" in error
    with pipe.warehouse() as connection:
        connection.execute(error[error.index("UPDATE ") :])
    state = pipe.sync(streams, before).ok().state
    pipe.do("grant execute on function pg_control_system() to public")
    error = pipe.sync(streams, state).refused("other_source")
    with pipe.warehouse() as connection:
        connection.execute(error[error.index("UPDATE ") :])
    pipe.sync(streams, state).ok()


def test_a_missing_right_is_named_with_its_grant(pipe):
    pipe.do(ORDERS + READER.format(role="unable") + "grant select on orders to unable")
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    pipe.tap |= {"user": "unable", "password": "reader"}
    pipe.do(
        "revoke execute on function pg_export_snapshot() from public; revoke select on pg_prepared_xacts from public"
    )
    try:
        for grant in ("SELECT ON pg_catalog.pg_prepared_xacts", "EXECUTE ON FUNCTION pg_catalog.pg_export_snapshot"):
            assert f'GRANT {grant} TO "unable"' in pipe.sync(catalog).refused("permission_denied")
            pipe.do(f"GRANT {grant} TO unable")
        pipe.sync(catalog).ok()
    finally:
        pipe.do("grant execute on function pg_export_snapshot() to public; grant select on pg_prepared_xacts to public")


def test_an_unset_password_is_found_where_libpq_looks(pipe):
    pipe.do(ORDERS)
    ends = [conninfo_to_dict(url) for url in (pipe.source_url, pipe.warehouse_url)]
    lines = [f"{end['host']}:{end['port']}:*:{end['user']}:{end['password']}\n" for end in ends]
    passwords = pipe.directory / "passwords"
    passwords.touch(mode=0o600)
    passwords.write_text("".join(lines))
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    pipe.tap["password"] = pipe.target["password"] = ""
    pipe.env = {"PGPASSFILE": str(passwords)}
    pipe.sync(catalog).ok()
    passwords.write_text(lines[1])
    assert "no password supplied" in pipe.sync(catalog).refused("login_refused")
    for setting in ("tap", "target"):
        config = pipe.directory / "bare.json"
        config.write_text('{"host": "127.0.0.1"}')
        done = programs.run([{"tap": TAP, "target": TARGET}[setting], "--config", config])
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "to be set" in done.stderr or "is missing" in done.stderr


@pytest.mark.long
def test_a_large_value_takes_only_a_small_multiple_of_its_size_in_memory(pipe):
    size = 48
    pipe.do(
        "create table files (id int primary key, doc bytea, ip inet, updated_at timestamptz default now()); "
        f"insert into files values (1, decode(repeat('00ff5c0a', {size * 2**18}), 'hex'), '10.0.0.1')"
    )
    processes = pipe.start({"public-files": INCREMENTAL})
    peaks = [0, 0]
    while processes[0].poll() is None:
        for number, process in enumerate(processes):
            with suppress(OSError, StopIteration):
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
                peaks[number] = max(peaks[number], int(peak.split()[1]) // 1024)
        time.sleep(0.02)
    pipe.finish(processes).ok()
    # hex doubles its length
    assert peaks[0] < 150 + 3.5 * 2 * size
    assert peaks[1] < 150


def test_a_role_that_may_read_only_the_selected_columns_reads_them(pipe):
    pipe.do(
        ORDERS + "create table parts (id int, note text, at timestamptz, primary key (id)) partition by range (id);"
    )
    pipe.do(
        "create table parts_1 partition of parts for values from (0) to (9); insert into parts values (1, 'a', now())"
    )
    pipe.do(READER.format(role="some_columns"))
    pipe.do(
        "grant select (id, amount, updated_at) on orders to some_columns; "
        "grant select (id, at) on parts to some_columns"
    )
    pipe.tap |= {"user": "some_columns", "password": "reader", "chunk_size_mb": 0.05}
    streams = {
        "public-orders": {**INCREMENTAL, "select": ["id", "amount", "updated_at"]},
        "public-parts": {"replication-method": "INCREMENTAL", "replication-key": "at", "select": ["id", "at"]},
    }
    state = pipe.sync(streams).ok().state
    pipe.do("update orders set amount = 0, updated_at = now() where id = 1")
    pipe.sync(streams, state).ok()
    pipe.sync({"public-parts": {**FULL_TABLE, "select": ["id", "at"]}}).ok()
    assert pipe.rows("select count(*), count(*) filter (where amount = 0) from raw.orders") == [(5000, 1)]
    error = pipe.sync({"public-orders": INCREMENTAL}).refused("permission_denied")
    assert 'GRANT SELECT ("note") ON "public"."orders" TO' in error
