"""Connections that are cut or stall, on either side: runs continue or say so, and no row is lost or doubled."""

from __future__ import annotations

import random
import time

import pytest

from tests.chaos.conftest import LONG
from tests.chaos.proxy import Proxy
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_crashes import BIG, SMALL_CHUNKS, assert_equal, wait_for

ROUNDS = 15 if LONG else 1
METHODS = [
    pytest.param(INCREMENTAL, id="incremental"),
    pytest.param(FULL_TABLE, id="whole", marks=[] if LONG else [pytest.mark.long]),
]


@pytest.fixture(params=["source", pytest.param("warehouse", marks=[] if LONG else [pytest.mark.long])])
def proxied(request, pipe):
    """A pipe with a proxy in front of one of its sides."""
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    with Proxy(getattr(pipe, f"{request.param}_url")) as proxy:
        (pipe.tap if request.param == "source" else pipe.target).update(proxy.settings)
        yield pipe, proxy


def wait_for_bytes(proxy, count):
    """Wait until the proxy has forwarded more than `count` bytes in total."""
    wait_for(lambda: proxy.bytes > count)


@pytest.mark.parametrize("method", METHODS)
def test_connections_are_cut_again_and_again_and_both_sides_end_equal(proxied, method):
    pipe, proxy = proxied
    if method == INCREMENTAL:
        pipe.tap["snapshot_seconds"] = 0.5
    catalog, state, failed = pipe.catalog({"public-orders": method}), None, []
    for number in range(ROUNDS):
        chance = random.Random(number)
        # from the fifth round on, rows are read from a bookmark
        if number % 5 == 0:
            state = None
            with pipe.warehouse() as connection:
                connection.execute("drop schema if exists raw cascade")
        carried = proxy.bytes
        processes = pipe.start(catalog, state)
        if number % 5 == 0:
            # cut after the run has begun to read, however long that takes here
            wait_for_bytes(proxy, carried + chance.randint(0, 1_000_000))
            proxy.cut()
        for _ in range(chance.randint(1, 3)):
            time.sleep(chance.uniform(0.05, 0.7))
            proxy.cut()
        ended = pipe.finish(processes)
        assert "Traceback" not in ended.tap_log + ended.target_log
        if (ended.tap_status, ended.target_status) != (0, 0):
            assert ended.errors
            failed.append(f"{ended.tap_log}\n{ended.target_log}")
        state = ended.state or state
        pipe.do(f"update orders set note = 'round {number}', updated_at = now() where id % 50 = {number % 50}")
    assert proxy.cuts
    assert not failed, "\n\n".join(failed)
    pipe.sync(catalog, state).ok()
    assert_equal(pipe)


def test_a_first_connection_that_is_cut_while_it_opens_is_retried(proxied):
    pipe, proxy = proxied
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    before, cuts = proxy.bytes, proxy.cuts
    processes = pipe.start(catalog)
    wait_for_bytes(proxy, before)
    proxy.cut()
    assert proxy.cuts > cuts
    pipe.finish(processes).ok()
    assert_equal(pipe)


@pytest.mark.parametrize("stall_s", [pytest.param(2, marks=[] if LONG else [pytest.mark.long])])
def test_a_connection_that_stalls_delays_the_run_only_by_the_stall(proxied, stall_s):
    pipe, proxy = proxied
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    before = proxy.bytes
    processes = pipe.start(catalog)
    wait_for_bytes(proxy, before + 500_000)
    proxy.stall()
    time.sleep(stall_s)
    assert all(process.poll() is None for process in processes)
    proxy.flow()
    pipe.finish(processes).ok()
    assert_equal(pipe)
