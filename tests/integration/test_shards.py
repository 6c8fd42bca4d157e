"""Several runs, on any machines, share the load of a source: `tidemark run --shard 2/4`."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import psutil
import psycopg
import pytest

from singer_postgres.core import advisory_locks
from singer_postgres.core.warehouse import shard_plan, tables
from singer_postgres.core.warehouse.load_parts import LoadParts
from singer_postgres.core.warehouse.shard_plan import ShardPlan
from singer_postgres.core.warehouse.state_table import StateTable
from singer_postgres.core.wire import FIRST_LOAD
from tests.integration.stages import make_checkout
from tidemark.errors import TidemarkError, WarehouseUnreachableError
from tidemark.inspect.reconcile.pairing import Endpoints
from tidemark.project import connections, database_settings, meltano_state, sources, state_lock
from tidemark.project.directory import Project
from tidemark.run import sharded, stream_sizes
from tidemark.run.shard import Shard
from tidemark.run.shared_loads import SharedLoads

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from meltano.core.state_service import StateService

    from singer_postgres.core.advisory_locks import LockHolder
    from tests.integration.checkout import Checkout

# on a busy machine, each start of Meltano takes ten seconds
pytestmark = pytest.mark.timeout(600)
LOAD = ("tap-postgres", "target-postgres")
ROWS = 30_000
SMALL = ["small_1", "small_2"]
STATE = "dev:tap-postgres-to-target-postgres"
CRAFTED = "public-crafted"
_RAW = "id, note, updated_at"
FINISHED = "select count(*) from raw._tidemark_load_parts where finished_at is not null having count(*) > 0"
EXISTS = "select 1 where to_regclass('raw._tidemark_load_parts') is not null"
WAITING = "select 1 from pg_locks where not granted and relation = 'raw.{}'::regclass"
PLAN = "select shard, streams from raw._tidemark_shards order by shard"
RUNS = "select outcome, rows_read from raw._tidemark_runs where stream = 'public-{}' order by started_at"


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A project with some tables, none of them loaded; large ones have four parts."""
    with contextmanager(make_checkout)(stage="up") as checkout:
        rows = "select n, repeat('x', 300), now() - interval '1 day' from generate_series(1, {}) n"
        with checkout.connect("source") as connection:
            for table, count in {"big": ROWS, "tall": ROWS, **dict.fromkeys(SMALL, 10)}.items():
                key = "id bigint primary key, note text, updated_at timestamptz not null default now()"
                connection.execute(f"create table {table} ({key})")
                connection.execute(f"insert into {table} {rows.format(count)}")
        checkout.env["TIDEMARK_SHARD_PART_MB"] = "3"
        # which is never reached, and divided by the shards
        checkout.env["TAP_POSTGRES_MAX_SOURCE_MB_PER_S"] = "1001"
        yield checkout


def select(project: Checkout, *tables: str) -> None:
    streams = [f"public-{table}" for table in tables]
    incremental = {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
    project.env["TAP_POSTGRES__SELECT"] = json.dumps([f"{stream}.*" for stream in streams])
    project.env["TAP_POSTGRES__METADATA"] = json.dumps(dict.fromkeys(streams, incremental))


def shard(project: Checkout, which: str) -> Future[subprocess.CompletedProcess[str]]:
    return project.meanwhile("tidemark", "run", "--shard", which, *LOAD)


def ended_well(run: Future[subprocess.CompletedProcess[str]]) -> str:
    done = run.result()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def until(found: Callable[[], object], what: str, seconds: float = 90) -> object:
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return answer


def kill(project: Checkout, run: Future[subprocess.CompletedProcess[str]]) -> None:
    """Kill a run with all that it started, as when its machine loses its power."""
    for each in psutil.process_iter(["cwd"]):
        if each.info["cwd"] == str(project.root):
            each.kill()
    assert run.result().returncode == -signal.SIGKILL


def killed_in_a_part(project: Checkout, table: str) -> None:
    """Start a shard, and kill it while it loads a part of a table after at least another one."""
    run = shard(project, "1/2")
    finished = FINISHED + f" and max(stream) = 'public-{table}'"
    with project.connect("warehouse") as connection:

        def found(query: str) -> list[Any]:
            return connection.execute(query.encode()).fetchall()

        until(lambda: found(EXISTS) and found(finished), "a part")
        with connection.transaction():
            connection.execute(f"lock table raw.{table} in share row exclusive mode".encode())
            until(lambda: found(WAITING.format(table)), "the next part is being loaded")
            kill(project, run)


def assert_equal(project: Checkout, *tables: str) -> None:
    for table in tables:
        query = f"select count(*), count(distinct id), md5(string_agg(({_RAW})::text, ';' order by id)) from "
        assert project.rows("warehouse", f"{query}raw.{table}") == project.rows("source", f"{query}{table}")


def test_the_part_of_a_killed_run_is_taken_over_and_each_row_is_there_once(project):
    select(project, "big", *SMALL)
    killed_in_a_part(project, "big")
    with project.connect("source") as connection:
        # rows that were loaded, and rows beyond the blocks that were divided
        connection.execute("update big set note = 'changed', updated_at = now() where id % 1000 = 0")
        connection.execute("insert into big select n, 'new' from generate_series(40000, 49999) n")
    said = ended_well(shard(project, "2/2"))
    assert "All parts of public-big are loaded" in said
    assert project.rows("warehouse", "select count(*) from raw._tidemark_load_parts") == [(0,)]
    # the watermark is older than the changes, so the next runs read what the parts had read before
    for run in [shard(project, which) for which in ("1/2", "2/2")]:
        ended_well(run)
    assert_equal(project, "big", *SMALL)
    outcomes = [outcome for outcome, _ in project.rows("warehouse", RUNS.format("big"))]
    assert outcomes[:2] == ["killed", "succeeded"]
    assert project.run("meltano", "state", "list").stdout.split() == [STATE]


@pytest.fixture
def ours(project: Checkout, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project, for calls in this process."""
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    return Project(project.root)


@pytest.fixture
def crafted(ours: Project) -> Iterator[Callable[[], SharedLoads]]:
    """A shared load whose parts are all loaded, as it is seen by any number of sessions."""
    source = sources.find(ours, sources.FIRST)
    with ExitStack() as stack:

        def seen() -> SharedLoads:
            warehouse = connections.connect(database_settings.warehouse(ours, source))
            return SharedLoads(ours, source, "crafted", stack.enter_context(warehouse))

        warehouse, parts = seen().warehouse, LoadParts("raw", "crafted")
        tables.ensure_schema(warehouse, "raw")
        parts.ensure(warehouse)
        StateTable("raw").ensure(warehouse)
        shard_plan.TABLE.ensure(warehouse, "raw")
        parts.open(warehouse, CRAFTED, "crafted", load_id="load", parts=[([(1, 0, 8)], 1)])
        warehouse.execute(
            """update raw._tidemark_load_parts set finished_at = now(), done = ranges, columns = '[]', watermark = '7'
            where source = 'crafted'"""
        )
        yield seen
        warehouse.execute("delete from raw._tidemark_load_parts where source = 'crafted'")
        warehouse.execute("delete from raw._tidemark_shards where source = 'crafted'")
        meltano_state.clear(ours, [meltano_state.id_of(ours, source)])


def test_a_load_is_handed_over_beside_the_end_of_another_shard_and_both_are_in_the_state(crafted, monkeypatch):
    loads, other = crafted(), crafted()
    ours, source = loads.project, loads.source
    meltano_state.put(ours, source, {"public-other": {"replication_key_value": 1}})
    meltano_state.begin_shard(ours, source, "2-of-2", ["public-other"])
    with meltano_state._meltano_state(ours) as service:
        meltano_state._put(service, f"{STATE}:shard-2-of-2", {"public-other": {"replication_key_value": 2}})
    put = meltano_state._put

    def slow(service: StateService, name: str, entries: dict[str, Any]) -> None:
        payload = meltano_state._payload(service, name)
        time.sleep(0.3)
        with monkeypatch.context() as patched:
            patched.setattr(meltano_state, "_payload", lambda *_: payload)
            put(service, name, entries)

    def end() -> None:
        with state_lock.alone(other.warehouse, source):
            meltano_state.end_shard(ours, source, "2-of-2")

    monkeypatch.setattr(meltano_state, "_put", slow)
    with ThreadPoolExecutor(2) as beside:
        handed, ended = beside.submit(loads.hand_over, loads.now()[CRAFTED]), beside.submit(end)
        assert handed.result()
        ended.result()
    entries = meltano_state.entries(ours, source)
    assert (entries[CRAFTED][FIRST_LOAD], entries["public-other"]) == (["7", [[1, 0, 8]]], {"replication_key_value": 2})


def test_a_load_belongs_to_the_run_that_completes_it_although_others_were_killed_or_begin_late(crafted, monkeypatch):
    killed, completes = crafted(), crafted()
    plan = ShardPlan("raw", "crafted", 2)
    weights = {(CRAFTED,): 1, ("public-other",): 5}
    assert plan.take(killed.warehouse, 1, run_id="1", weights=weights) == ("public-other",)
    with monkeypatch.context() as patched:
        patched.setattr(LoadParts, "close", lambda _, connection, __: connection.close())
        with pytest.raises(psycopg.OperationalError):
            killed.hand_over(killed.now()[CRAFTED], Shard(1, 2))
    # Meltano's state was written and the parts are still there, so another run does it again
    assert meltano_state.entries(completes.project, completes.source)[CRAFTED][FIRST_LOAD] == ["7", [[1, 0, 8]]]
    assert completes.hand_over(completes.now()[CRAFTED], Shard(1, 2))
    assert CRAFTED not in completes.now()
    # the plan gave it to the second shard
    assert plan.take(completes.warehouse, 2, run_id="2", weights=weights) == ()
    assert set(plan.take(completes.warehouse, 1, run_id="1", weights=weights)) == {CRAFTED, "public-other"}


def test_a_table_that_is_altered_keeps_no_shard_from_the_others(project, ours, monkeypatch):
    select(project, "big", "tall")
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    source = sources.find(ours, sources.FIRST)
    ends = Endpoints.of(ours, source)
    with ExitStack() as stack:
        reader, altering = (stack.enter_context(project.connect("source")) for _ in range(2))
        reader.execute("set lock_timeout = '2s'")
        altering.execute("vacuum big")
        stack.enter_context(altering.transaction(force_rollback=True))
        whole = stream_sizes.of_tables(reader, ends.selected.values())
        altering.execute("lock table big in access exclusive mode")
        sizes = stream_sizes.of_tables(reader, ends.selected.values())
        assert sizes["public-tall"] == whole["public-tall"]
        assert 0.9 < sizes["public-big"] / whole["public-big"] <= 1
        loads = SharedLoads(ours, source, "altered", stack.enter_context(sharded._session(ends)))
        tables.ensure_schema(loads.warehouse, "raw")
        try:
            loads.open(ends, ends.selected.values(), sizes, runs=2)
            assert set(loads.now()) == {"public-tall"}
        finally:
            loads.warehouse.execute("delete from raw._tidemark_load_parts where source = 'altered'")


@pytest.mark.parametrize(
    ("statement", "error", "said"),
    [
        ("select from gone", TidemarkError, 'The warehouse refused a statement: relation "gone" does not exist'),
        (
            "select pg_terminate_backend(pg_backend_pid())",
            WarehouseUnreachableError,
            "A session in the warehouse broke",
        ),
    ],
)
def test_an_error_in_the_session_with_the_shards_locks_says_what_the_warehouse_refused(ours, statement, error, said):
    ends = Endpoints.of(ours, sources.find(ours, sources.FIRST))
    with pytest.raises(error, match=said), sharded._session(ends) as session:
        session.execute(statement)


def test_the_shards_together_read_no_more_in_a_second_than_one_run_may(ours, monkeypatch):
    begun = mock.MagicMock()
    begun.outcome.blocks = [mock.MagicMock()]
    source = sources.find(ours, sources.FIRST)
    run = sharded._ShardRun(ours, source, Shard(2, 4), mock.Mock(), begun, mock.Mock(), mock.Mock(), "")
    given = []
    for ceiling in ("10", "0"):
        monkeypatch.setenv("TAP_POSTGRES_MAX_SOURCE_MB_PER_S", ceiling)
        run._meltano(["public-big"], {})
        given.append(begun.load.call_args.kwargs["more"].get("TAP_POSTGRES_MAX_SOURCE_MB_PER_S"))
    # Meltano refuses a fraction in a variable
    assert given == ["2", None]


def test_shards_on_several_machines_say_that_a_file_has_meltanos_state(ours, monkeypatch):
    warehouse = database_settings.warehouse(ours, sources.find(ours, sources.FIRST))
    plan, holder = ShardPlan("raw", "machines", 3), advisory_locks.holder
    with connections.connect(warehouse) as one, connections.connect(warehouse) as other:
        for session, number in ((one, 1), (other, 2)):
            advisory_locks.try_lock(session, plan.lock_key(number))
        assert sharded._of_state_file(ours, one, plan) is None

        def elsewhere(connection: psycopg.Connection[Any], lock: int) -> LockHolder | None:
            found = holder(connection, lock)
            return found._replace(address="10.0.0.7") if found and lock == plan.lock_key(2) else found

        monkeypatch.setattr(advisory_locks, "holder", elsewhere)
        said = sharded._of_state_file(ours, one, plan)
        assert said is not None
        assert said.startswith("Shards run on several machines (10.0.0.7, 127.0.0.1), and Meltano's state is in /")
        assert "Set MELTANO_DATABASE_URI" in said
        monkeypatch.setenv("MELTANO_DATABASE_URI", "postgresql://db/meltano")
        assert sharded._of_state_file(ours, one, plan) is None


@pytest.mark.long
def test_an_ordinary_run_goes_on_from_what_killed_shards_have_loaded(project):
    select(project, "tall")
    killed_in_a_part(project, "tall")
    with project.connect("source") as connection:
        connection.execute("insert into tall select n, 'new' from generate_series(40000, 40009) n")
    project.tidemark("run", *LOAD)
    (_, killed), (outcome, read) = project.rows("warehouse", RUNS.format("tall"))
    assert (outcome, killed > 0, read < ROWS) == ("succeeded", True, True)
    # new rows may be in blocks that were read before
    project.tidemark("run", *LOAD)
    assert_equal(project, "tall")
    # a stream that is rewound does not go on from parts either
    with project.connect("warehouse") as connection:
        columns = "source, stream, part, load_id, table_name, ranges, bytes"
        values = "'', 'public-tall', 1, '', 'tall', '[]', 0"
        connection.execute(f"insert into raw._tidemark_load_parts ({columns}) values ({values})")
    project.tidemark("state", "rewind", "public-tall", "--to", "beginning")
    assert project.rows("warehouse", "select count(*) from raw._tidemark_load_parts") == [(0,)]


@pytest.mark.long
def test_a_killed_shard_loses_no_state_of_another(project):
    select(project, *SMALL)
    for number in (1, 2):
        ended_well(shard(project, f"{number}/2"))
    with project.connect("source") as connection:
        for table in SMALL:
            connection.execute(f"insert into {table} values (100, 'new')")
    before = _bookmarks(project)
    with ExitStack() as stack:
        locks = {table: stack.enter_context(_locked(project, table)) for table in SMALL}
        first = shard(project, "1/2")
        waiting = " union ".join(WAITING.format(table) for table in SMALL)
        until(lambda: project.rows("warehouse", waiting), "the shard loads")
        assert "Shard 1/2 of postgres is being loaded already" in project.refusal("run", "--shard", "1/2", *LOAD)
        # each stream is in one shard
        ((own,), (other,)) = (streams for _, streams in project.rows("warehouse", PLAN))
        locks[other.removeprefix("public-")].close()
        ended_well(shard(project, "2/2"))
        kill(project, first)
    after = _bookmarks(project)
    assert (after[own], after[other] > before[other]) == (before[own], True)
    ended_well(shard(project, "1/2"))
    assert _bookmarks(project)[own] > before[own]
    assert _bookmarks(project)[other] == after[other]
    assert_equal(project, *SMALL)


def _locked(project: Checkout, table: str) -> ExitStack:
    """Lock a table of the warehouse against loads."""
    stack = ExitStack()
    connection = stack.enter_context(project.connect("warehouse"))
    stack.enter_context(connection.transaction())
    connection.execute(f"lock table raw.{table} in share row exclusive mode")
    return stack


def _bookmarks(project: Checkout) -> dict[str, str]:
    state = json.loads(project.run("meltano", "state", "get", STATE).stdout)["singer_state"]["bookmarks"]
    return {stream: entry["replication_key_value"] for stream, entry in state.items()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shard", "5/4", *LOAD], "--shard is '5/4'"),
        (["--shard", "two", *LOAD], "--shard is 'two'"),
        (["--shard", "1/2", *LOAD, "dbt-postgres:run"], "--shard is for the load of one source"),
        (["--shard", "1/2", "--source", "postgres", *LOAD], "--shard is for a load"),
    ],
)
def test_a_shard_that_can_not_be_is_refused_in_one_line(project, options, said):
    assert said in project.refusal("run", *options)


@pytest.mark.long
@pytest.mark.parametrize(
    ("table", "settings"),
    [
        ("recorded", {"TAP_POSTGRES_USE_COPY": "false"}),
        ("hashed", {"TARGET_POSTGRES_RAW_PARTITIONS": '{"public-hashed": {"by": "hash", "count": 4}}'}),
        ("ranged", {"TARGET_POSTGRES_RAW_PARTITIONS": '{"public-ranged": {"by": "range", "width": 10000}}'}),
    ],
)
def test_shards_bring_each_row_once_whatever_tap_and_target_are_set_to(project, table, settings):
    with project.connect("source") as connection:
        connection.execute(f"create table {table} (like big including all); insert into {table} select * from big")
    # alone: rows that were sent as records before are not known to be in the warehouse
    select(project, table)
    before = dict(project.env)
    project.env.update(settings)
    try:
        said = [ended_well(run) for run in [shard(project, which) for which in ("1/2", "2/2")]]
    finally:
        project.env.clear()
        project.env.update(before)
    assert any("Loading part" in each for each in said) == (table != "recorded")
    assert_equal(project, table)


@pytest.mark.long
def test_log_based_streams_stay_in_one_shard_and_are_followed_beside_the_others(project):
    logged, others = ["logged_1", "logged_2"], ["beside_1", "beside_2"]
    with project.connect("source") as connection:
        for table in [*logged, *others]:
            connection.execute(f"create table {table} (like big including all); insert into {table} values (1), (2)")
    select(project, *logged, *others)
    methods = json.loads(project.env["TAP_POSTGRES__METADATA"])
    methods |= {f"public-{table}": {"replication-method": "LOG_BASED"} for table in logged}
    project.env["TAP_POSTGRES__METADATA"] = json.dumps(methods)
    # the server has to be started again with wal_level logical
    project.refusal("slots", "create")
    project.tidemark("down")
    project.tidemark("up")
    project.tidemark("slots", "create")
    for turn in range(2):
        for run in [shard(project, which) for which in ("1/2", "2/2")]:
            ended_well(run)
        assert_equal(project, *logged, *others)
        with project.connect("source") as connection:
            for table in logged:
                connection.execute(f"update {table} set note = 'changed'; insert into {table} values ({turn + 3})")
    of = {stream: number for number, streams in project.rows("warehouse", PLAN) for stream in streams}
    assert len({of[f"public-{table}"] for table in logged}) == 1
