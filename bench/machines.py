"""`python -m bench.machines`: what several machines would do, from CPU seconds that are measured on this one.

It measures a table's first load as one run and as parts that runs share, and a round over streams without changes: the
CPU of the runs, of the source and of the warehouse, and the warehouse's WAL. From these it computes, for some numbers
of machines, what the limit is, and how long it takes then. Options: ROWS, STREAMS; AGAIN=1 computes from the last
measurement.
"""

from __future__ import annotations

import json
import os
import resource
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout

from bench.report import DIRECTORY
from bench.startup import programs_cpu_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.integration.checkout import Checkout

_RESULT, _MEASURED = DIRECTORY / "machines.md", DIRECTORY / "machines.json"
_CONSOLE = Console()
_LOAD = ("tap-postgres", "target-postgres")
# the question: rows of one table, streams in a round, workers; or sessions of one run
ROWS, STREAMS, WORKERS = 1_000_000_000, 1_000, (1, 2, 4, 8, 16)
PARALLEL = (2, 4, 8, 16)
# of the machines that the answer is for
WORKER_CORES, SOURCE_CORES, WAREHOUSE_CORES = 4, 16, 32
WAL_MB_S, NETWORK_MB_S = 1_000, 1_000
# by default, a run loads so many chunks at once, each in a session of the warehouse, which has one processor
MAX_PARALLEL = 2
# of the table that is measured, in the source, and the parts that its load has
_BYTES_A_ROW, _PARTS = 130, 2
# a part of a billion rows, as `tidemark run --shard` divides it
PART_MB = 16 * 1024


@dataclass(frozen=True)
class Used:
    """What a load used: CPU seconds of each side, and the warehouse's WAL in MB."""

    worker: float
    source: float
    warehouse: float
    wal_mb: float

    def __sub__(self, other: Used) -> Used:
        """Return what was used beyond `other`."""
        return Used(*(max(0.0, mine - its) for mine, its in zip(self.figures, other.figures, strict=True)))

    def times(self, factor: float) -> Used:
        """Return a multiple."""
        return Used(*(each * factor for each in self.figures))

    def __add__(self, other: Used) -> Used:
        """Return the sum."""
        return Used(*(mine + its for mine, its in zip(self.figures, other.figures, strict=True)))

    @property
    def figures(self) -> tuple[float, float, float, float]:
        """All of them."""
        return self.worker, self.source, self.warehouse, self.wal_mb


@dataclass(frozen=True)
class Inputs:
    """What was measured.

    Attributes:
        start: a run of one stream without changes.
        stream: each further stream without changes.
        row_alone, row_shared: a million rows of a first load, in one run and in parts.
        tap, target: their CPU seconds for a million rows.
        bytes: of a row, as it travels.
        rows, streams: how many were measured.
    """

    start: Used
    stream: Used
    row_alone: Used
    row_shared: Used
    tap: float
    target: float
    bytes: float
    rows: int
    streams: int


def limits(used: Used, workers: int, *, megabytes: float = 0, sessions: int = MAX_PARALLEL) -> dict[str, float]:
    """Return how many seconds each resource needs for a load, by its name."""
    return {
        "the workers": used.worker / (workers * WORKER_CORES),
        "the sessions": used.warehouse / (workers * sessions),
        "the source": used.source / SOURCE_CORES,
        "the warehouse": used.warehouse / WAREHOUSE_CORES,
        "the warehouse's WAL": used.wal_mb / WAL_MB_S,
        "the network": megabytes / NETWORK_MB_S,
    }


def first_load(found: Inputs, workers: int) -> dict[str, float]:
    """Return the limits of the first load of `ROWS` rows."""
    megabytes = ROWS * found.bytes / 2**20
    starts = max(1, megabytes / PART_MB) if workers > 1 else 1
    rows = (found.row_shared if workers > 1 else found.row_alone).times(ROWS / 1e6)
    return limits(rows + found.start.times(starts), workers, megabytes=megabytes)


def one_run(found: Inputs, max_parallel: int) -> dict[str, float]:
    """Return the limits of that first load as one run, on a worker with a core for each session."""
    megabytes = ROWS * found.bytes / 2**20
    used = found.row_alone.times(ROWS / 1e6) + found.start
    found_limits = limits(used, 1, megabytes=megabytes, sessions=max_parallel)
    del found_limits["the workers"]
    # their threads share one interpreter each; they leave it while they read and write, so this is too long
    programs = {"the tap": found.tap, "the target": found.target}
    return found_limits | {name: seconds * ROWS / 1e6 for name, seconds in programs.items()}


def idle_round(found: Inputs, workers: int) -> dict[str, float]:
    """Return the limits of a round over `STREAMS` streams without changes, whose streams are read two at a time."""
    used = found.start.times(workers) + found.stream.times(STREAMS - workers)
    # Meltano, and much of the tap, have one thread
    alone = found.start.worker + found.stream.worker * (STREAMS / workers - 1)
    return {**limits(used, workers), "the workers": alone}


def measure(rows: int, streams: int) -> Inputs:
    """Measure the inputs on this machine."""
    with contextmanager(make_checkout)(stage="up") as checkout:
        key = "(id bigint primary key, note text, amount numeric(12, 2), updated_at timestamptz not null default now())"
        values = "n, md5(n::text) || md5((n + 1)::text), n % 1000, now() - interval '1 day'"
        with checkout.connect("source") as connection:
            small = dict.fromkeys(map(_small, range(streams)), 10)
            for name, count in {"alone": rows, "shared": rows, **small}.items():
                connection.execute(f"create table {name} {key}")
                insert = f"insert into {name} select {values} from generate_series(1, {count}) n"  # noqa: S608
                connection.execute(insert)
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")
        _select(checkout, [_small(0)])
        _used(checkout)
        starts = sorted((_used(checkout) for _ in range(5)), key=lambda each: each[0].worker)
        start, start_programs = starts[2]
        _select(checkout, list(map(_small, range(streams))))
        _used(checkout)
        idle, _ = _used(checkout)
        _select(checkout, ["alone"])
        alone, alone_programs = _used(checkout)
        _select(checkout, ["shared"])
        checkout.env["TIDEMARK_SHARD_PART_MB"] = str(rows * _BYTES_A_ROW / 2**20 / _PARTS)
        shared, _ = _used(checkout, "--shard=1/2", "--shard=2/2")
        with checkout.connect("warehouse") as connection:
            query = "select bytes from raw._tidemark_runs where stream = 'public-alone'"
            row = connection.execute(query).fetchone()
    assert row
    million = 1e6 / rows
    of_row = (alone - start).times(million)
    tap, target = ((alone_programs[name] - start_programs[name]) * million for name in _LOAD)
    return Inputs(
        start,
        (idle - start).times(1 / (streams - 1)),
        of_row,
        # A run for each part, and one that completes the load. They read and copy as one run does.
        replace((shared - start.times(_PARTS + 1)).times(million), worker=of_row.worker),
        tap,
        target,
        row[0] / rows,
        rows,
        streams,
    )


def _used(checkout: Checkout, *options: str) -> tuple[Used, dict[str, float]]:
    """Load, with one run for each of the options.

    Returns:
        What they used, and the CPU seconds of each program of the first run.
    """
    servers = [_postmaster(checkout, side) for side in ("source", "warehouse")]
    with checkout.connect("warehouse") as connection:
        connection.execute("checkpoint")
        (lsn,) = connection.execute("select pg_current_wal_insert_lsn()").fetchone() or ("",)
        before = [_cpu(server) for server in servers]
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        runs = [checkout.start("run", *filter(None, [option]), *_LOAD) for option in options or [""]]
        programs = programs_cpu_s(runs[0])
        for run in runs:
            said, _ = run.communicate()
            assert run.returncode == 0, said
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # backends count once their server has noticed that they ended
        time.sleep(1)
        source, warehouse = (_cpu(server) - was for server, was in zip(servers, before, strict=True))
        (wal,) = connection.execute("select pg_current_wal_insert_lsn() - %s::pg_lsn", [lsn]).fetchone() or (0,)
    worker = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    return Used(worker, source, warehouse, float(wal) / 2**20), programs


def _cpu(process: psutil.Process) -> float:
    # user, system, and those of children that have ended
    return float(sum(process.cpu_times()[:4]))


def _postmaster(checkout: Checkout, side: str) -> psutil.Process:
    pid_file = checkout.root / ".tidemark/postgres" / side / "data/postmaster.pid"
    return psutil.Process(int(pid_file.read_text().split()[0]))


def _small(number: int) -> str:
    return f"small_{number}"


def _select(checkout: Checkout, tables: list[str]) -> None:
    streams = [f"public-{table}" for table in tables]
    incremental = {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
    checkout.env["TAP_POSTGRES__SELECT"] = json.dumps([f"{stream}.*" for stream in streams])
    checkout.env["TAP_POSTGRES__METADATA"] = json.dumps(dict.fromkeys(streams, incremental))


def _report(found: Inputs) -> str:
    def shown(used: Used) -> str:
        return " | ".join(f"{each:.3g}" for each in used.figures)

    def table(limits_of: Callable[[Inputs, int], dict[str, float]], counts: Sequence[int] = WORKERS) -> Iterator[str]:
        for count in counts:
            found_limits = limits_of(found, count)
            limit, seconds = max(found_limits.items(), key=lambda each: each[1])
            others = ", ".join(f"{name.removeprefix('the ')} {each:,.0f} s" for name, each in found_limits.items())
            yield f"| {count} | {seconds / 60:,.1f} min | {limit} | {others} |"

    cores = f"{WORKER_CORES} cores, the source {SOURCE_CORES}, the warehouse {WAREHOUSE_CORES}"
    return f"""# What several machines would do

Computed by `python -m bench.machines` from CPU seconds measured on one machine, with a table of {found.rows:,} rows
of {found.bytes:.0f} bytes, and {found.streams} small streams without changes. So many machines were not there: the
tables below are a model. A worker has {cores},
whose disk takes {WAL_MB_S:,} MB/s of WAL; the network carries {NETWORK_MB_S:,} MB/s. `max_parallel` is {MAX_PARALLEL},
so a run loads with {MAX_PARALLEL} sessions of the warehouse, each of which has one processor. What the limit is, is
used to the full, so these are the shortest times that there can be. The key is built at the end by one session, with
PostgreSQL's parallel workers; its time is spread over all sessions here.

| measured, CPU seconds | worker | source | warehouse | WAL, MB |
|---|---|---|---|---|
| a run of one stream without changes | {shown(found.start)} |
| each further stream without changes | {shown(found.stream)} |
| a million rows of a first load, one run | {shown(found.row_alone)} |
| a million rows of a first load, in parts | {shown(found.row_shared)} |

Of a million rows, the tap takes {found.tap:.2f} CPU seconds, and the target {found.target:.2f}.

## The first load of {ROWS:,} rows in one table as one run

With `max_parallel` sessions of each server, a core for each, and twice as many chunk files (`chunks_outstanding`).

| max_parallel | time | limit | what each needs |
|---|---|---|---|
{chr(10).join(table(one_run, PARALLEL))}

## The first load of {ROWS:,} rows in one table by several workers

| workers | time | limit | what each needs |
|---|---|---|---|
{chr(10).join(table(first_load))}

## A round over {STREAMS:,} streams without changes

| workers | time | limit | what each needs |
|---|---|---|---|
{chr(10).join(table(idle_round))}
"""


def main() -> None:
    """Measure, compute, and write both."""
    if os.environ.get("AGAIN"):
        kept = json.loads(_MEASURED.read_text())
        values: dict[str, Any] = {n: Used(**each) if isinstance(each, dict) else each for n, each in kept.items()}
        found = Inputs(**values)
    else:
        found = measure(int(os.environ.get("ROWS") or 5_000_000), int(os.environ.get("STREAMS") or 100))
        _MEASURED.write_text(f"{json.dumps(asdict(found), indent=1)}\n")
    _RESULT.write_text(_report(found))
    _CONSOLE.print(_RESULT.read_text())


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    main()
