"""All kinds of poolers, simulated without a server: whether each is recognized."""

from __future__ import annotations

import itertools
import random
import socket
from types import SimpleNamespace

import pytest

from singer_postgres.core import poolers
from singer_postgres.core.errors import PoolerError

_NUMBERS = itertools.count()


class Pool:
    """A pooler's sessions, by their pids."""

    def __init__(self, mode="transaction", *, size=1, take=-1, others=0.0, seed=0):
        # what was probed is kept by its name
        self.number = next(_NUMBERS)
        self.mode = mode
        self.free = list(range(100, 100 + size))
        self.take = take
        # how busy the pool's other clients are
        self.others, self.random, self.lent = others, random.Random(seed), []
        self.asked = 0

    def connect(self):
        return Connection(self)

    def lend(self):
        self._bustle()
        assert self.free, "waits for ever"
        return self.free.pop(self.take)

    def give_back(self, session):
        self.free.append(session)
        self._bustle()

    def _bustle(self):
        if self.lent and self.random.random() < self.others:
            self.free.append(self.lent.pop(0))
        if len(self.free) > 2 and self.random.random() < self.others:
            self.lent.append(self.free.pop(self.take))


class Connection:
    """A client's connection; the pooler reports pid 7 for it."""

    def __init__(self, pool):
        self.pool = pool
        self.info = SimpleNamespace(backend_pid=7, host="pool", port=6432, dbname="x", user=pool.number)
        self.session = pool.lend() if pool.mode == "session" else None
        self.pid = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def cursor(self):
        return self

    def execute(self, statement):
        self.pool.asked += 1
        if statement == "begin":
            if self.pool.mode == "statement":
                raise RuntimeError("transaction blocks not allowed in statement pooling mode")
            self.session = self.session or self.pool.lend()
        elif statement == "rollback":
            if self.pool.mode == "transaction":
                self.pool.give_back(self.session)
                self.session = None
        elif self.session:
            self.pid = self.session
        else:
            self.pid = self.pool.lend()
            self.pool.give_back(self.pid)

    def fetchone(self):
        return (self.pid,)

    def close(self):
        if self.session:
            self.pool.give_back(self.session)


LAST, FIRST = -1, 0


@pytest.mark.parametrize("take", [LAST, FIRST], ids=["the last one given back", "the first one given back"])
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_transaction_pooling_is_noticed_while_nobody_else_uses_the_pool(size, take):
    pool = Pool(size=size, take=take)
    assert poolers.fault(pool.connect(), pool.connect) == "lends a session for one transaction"


@pytest.mark.parametrize("pools", [100, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize("others", [0.1, 0.5, 0.9])
def test_transaction_pooling_is_noticed_while_others_use_the_pool(others, pools):
    pools = [Pool(size=5, others=others, seed=seed) for seed in range(pools)]
    assert [each for each in pools if poolers.fault(each.connect(), each.connect) is None] == []


def test_statement_pooling_is_noticed():
    pool = Pool("statement", size=3)
    assert poolers.fault(pool.connect(), pool.connect) == "lends a session for one statement"


def test_a_session_pool_is_probed_once_per_process():
    pool = Pool("session", size=3)
    connection = pool.connect()
    assert poolers.fault(connection, pool.connect) is None
    asked = pool.asked
    assert poolers.fault(connection, pool.connect) is None
    assert pool.asked == asked + 1
    assert pool.free == [100, 101]


def test_a_server_is_recognized_with_one_query_and_no_second_connection():
    pool = Pool("session")
    server = pool.connect()
    server.info.backend_pid = server.session
    assert poolers.fault(server, another=None) is None
    assert pool.asked == 1


def test_a_refused_pooler_is_named_with_its_address_and_its_variables():
    pool = Pool()
    with pytest.raises(PoolerError, match=r"^pool:6432 .* one transaction.* set TAP_HOST and _PORT to the server"):
        poolers.require_session(pool.connect(), pool.connect, variables="TAP_HOST and _PORT")


@pytest.mark.parametrize(
    ("name", "found", "told"), [("TimeZone", "Asia/Tokyo", "UTC"), ("DateStyle", "SQL, DMY", "ISO")]
)
def test_a_pooler_that_drops_session_settings_is_named_with_the_settings(name, found, told):
    info = SimpleNamespace(host="pool", port=6432, parameter_status={name: found}.get)
    connection = SimpleNamespace(info=info)
    with pytest.raises(PoolerError, match=rf"^pool:6432 .* {name} is {found}, not {told}\. Set DBT_HOST to"):
        poolers.require_settings(connection, {name: told}, variables="DBT_HOST")
    poolers.require_settings(connection, {name: found.lower()}, variables="DBT_HOST")


def test_a_pool_of_one_connection_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(poolers, "_PATIENCE_S", 0.1)
    ours, theirs = socket.socketpair()

    class Waiting(Connection):
        def __init__(self):
            self.pool = pool
            self.session = None

        def execute(self, _):
            # waits until the other end is gone
            assert ours.recv(1) == b""
            raise OSError("server closed the connection unexpectedly")

        def fileno(self):
            return ours.fileno()

    pool = Pool("session", size=1)
    with ours, theirs:
        assert poolers.fault(pool.connect(), Waiting) == "gave no second session in 0 s (default_pool_size)"
