"""Runs tap and target as programs, one piped into the other, between two new databases for each test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dotenv import dotenv_values
from meltano.core.logging.parsers import SingerSDKLogParser

from tests import programs
from tests.integration.stages import make_checkout
from tests.programs import TAP, TARGET
from tests.servers import INSTALLATIONS
from tests.singer import databases
from tests.singer.databases import Sessions, fresh_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.checkout import Checkout

INCREMENTAL = {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
FULL_TABLE = {"replication-method": "FULL_TABLE"}
_TIMEOUT_S = 120
# changes if anything changes that discovery looks at
_CATALOGS = """
    select md5(concat(
        (select string_agg(concat_ws(' ', oid, relname, relnamespace, relkind, relowner, relacl, relpersistence,
            relispartition, relreplident, relhassubclass, relrowsecurity), ',' order by oid)
            from pg_class where oid >= 16384),
        (select string_agg(a::text, ',' order by attrelid, attnum) from pg_attribute a where attrelid >= 16384),
        (select string_agg(c::text, ',' order by oid) from pg_constraint c where oid >= 16384),
        (select string_agg(i::text, ',' order by indexrelid) from pg_index i where indexrelid >= 16384),
        (select string_agg(t::text, ',' order by oid) from pg_type t where oid >= 16384),
        (select string_agg(n::text, ',' order by oid) from pg_namespace n),
        (select string_agg(d::text, ',' order by objoid, objsubid) from pg_description d where objoid >= 16384),
        (select string_agg(r::text, ',' order by oid) from pg_roles r),
        (select string_agg(m::text, ',' order by roleid, member) from pg_auth_members m),
        (select string_agg(s::text, ',' order by setdatabase, setrole) from pg_db_role_setting s)
    ))
"""
# as by default, and again as for Meltano, because only those lines have the errors' codes
_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "console": {"()": "singer_sdk.logging.ConsoleFormatter"},
        "structured": {"()": "singer_sdk.logging.StructuredFormatter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "console", "stream": "ext://sys.stderr"}},
    "root": {"handlers": ["stderr", "file"]},
}


@dataclass
class Synced:
    """The result of a run."""

    tap_status: int
    target_status: int
    tap_log: str
    target_log: str
    messages: list[dict[str, Any]]
    states: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    """The `error` of each line with one, as Meltano reads it."""

    @property
    def codes(self) -> set[str]:
        """The codes of the errors of both programs."""
        return {failure["code"] for failure in self.failures}

    @property
    def state(self) -> dict[str, Any] | None:
        """The last state that the target emitted."""
        return self.states[-1] if self.states else None

    @property
    def errors(self) -> list[str]:
        """The error lines of both programs."""
        return [line for line in (self.tap_log + self.target_log).splitlines() if "| ERROR" in line]

    def ok(self) -> Synced:
        """Check that both programs succeeded, and return this."""
        assert (self.tap_status, self.target_status) == (0, 0), f"{self.tap_log}\n{self.target_log}"
        return self

    def refused(self, code: str) -> str:
        """Check that the run failed with one error of this code, and return its line."""
        log = self.tap_log + self.target_log
        assert 1 in {self.tap_status, self.target_status}, log
        assert "Traceback" not in log
        assert self.codes == {code}, log
        (line,) = {each.split("|", 3)[-1].strip() for each in self.errors if "unhandled error occurred" not in each}
        return line


@dataclass
class Pipe:
    """A source, a warehouse, and the settings of the tap and target between them."""

    source_url: str
    warehouse_url: str
    directory: Path
    tap: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    patches: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables for tap and target."""
    state: dict[str, Any] | None = None
    """What a test keeps of a run's state."""
    sessions: Sessions = field(default_factory=Sessions)
    """For `do` and `rows`."""
    discovered: dict[Any, str] = field(default_factory=dict)
    """Catalogs by what they depend on."""

    def source(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.source_url, autocommit=True, **options)

    def warehouse(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.warehouse_url, autocommit=True, **options)

    def do(self, statements: str) -> None:
        """Run statements in the source."""
        self.sessions.execute(self.source_url, statements)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query in the warehouse."""
        return self.sessions.execute(self.warehouse_url, query).fetchall()

    def environment(self) -> dict[str, str]:
        """Return the environment for a tap or target whose errors `failures` returns; forget those of earlier runs."""
        self._log.write_text("")
        file = {"class": "logging.FileHandler", "formatter": "structured", "filename": str(self._log)}
        config = self.directory / "logging.yaml"
        config.write_text(json.dumps({**_LOGGING, "handlers": {**_LOGGING["handlers"], "file": file}}))
        return {**os.environ, "SINGER_SDK_LOG_CONFIG": str(config), **self.env}

    def failures(self) -> list[dict[str, Any]]:
        """Return the `error` of each logged line with one, as Meltano reads it."""
        records = map(SingerSDKLogParser().parse, self._log.read_text().splitlines())
        return [record.extra["error"] for record in records if record and "error" in record.extra]

    @property
    def _log(self) -> Path:
        return self.directory / "log.jsonl"

    @property
    def chunks(self) -> Path:
        return self.directory / "chunks"

    def _file(self, name: str, content: Any) -> Path:
        path = self.directory / name
        path.write_text(json.dumps(content))
        return path

    def configs(self) -> tuple[Path, Path]:
        """Write the settings of tap and target to files, and return their paths."""
        tap = {"use_copy": True, "chunk_dir": str(self.chunks), "filter_schemas": ["public"]}
        target = {"default_target_schema": "raw", "hard_delete": True}
        return (
            self._file("tap.json", {**_connection(self.source_url), **tap, **self.tap}),
            self._file("target.json", {**_connection(self.warehouse_url), **target, **self.target}),
        )

    def discover(self) -> dict[str, Any]:
        config, _ = self.configs()
        done = programs.run([TAP, "--config", config, "--discover"])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def catalog(self, streams: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the source's catalog with `streams` selected, each with its metadata, as Meltano makes it.

        If a stream's metadata has a list `select`, only these columns are selected.
        """
        depends_on = (self.configs()[0].read_text(), *self.sessions.execute(self.source_url, _CATALOGS))
        if depends_on not in self.discovered:
            self.discovered[depends_on] = json.dumps(self.discover())
        catalog = json.loads(self.discovered[depends_on])
        for stream in catalog["streams"]:
            metadata = dict(streams.get(stream["tap_stream_id"], {}))
            columns = metadata.pop("select", None)
            for entry in stream["metadata"]:
                if not entry["breadcrumb"]:
                    entry["metadata"] |= {"selected": stream["tap_stream_id"] in streams, **metadata}
                elif columns is not None:
                    entry["metadata"]["selected"] = entry["breadcrumb"][1] in columns
            # as in Meltano, metadata takes precedence
            stream["replication_method"] = metadata.get("replication-method", stream["replication_method"])
            if "replication-key" in metadata:
                stream["replication_key"] = metadata["replication-key"]
        return catalog

    def start(
        self, streams: dict[str, dict[str, Any]], state: dict[str, Any] | None = None, *, listen: bool = False
    ) -> list[Any]:
        """Start tap and target; wait for them with `finish`.

        Args:
            streams: the streams' metadata by name, or a whole catalog.
            listen: record the messages between them, with an additional process.
        """
        catalog = streams if "streams" in streams else self.catalog(streams)
        tap_config, target_config = self.configs()
        command: list[Any] = [TAP, "--config", tap_config, "--catalog", self._file("catalog.json", catalog)]
        if state is not None:
            command += ["--state", self._file("state.json", state)]
        messages = self.directory / "messages"
        messages.write_text("")
        env = self.environment()
        with ExitStack() as stack:
            tap_log, target_log, states = (
                stack.enter_context((self.directory / name).open("wb")) for name in ("tap.log", "target.log", "states")
            )
            nothing = stack.enter_context(Path(os.devnull).open("rb"))
            processes: list[Any] = [
                programs.start(
                    command,
                    stdin=nothing,
                    stdout=None,
                    stderr=tap_log,
                    patches=self.patches,
                    env=env,
                )
            ]
            if listen:
                listener: list[Any] = ["tee", messages]
                processes.append(subprocess.Popen(listener, stdin=processes[0].stdout, stdout=subprocess.PIPE))
            command = [TARGET, "--config", target_config]
            processes.append(
                programs.start(
                    command,
                    stdin=processes[-1].stdout,
                    stdout=states,
                    stderr=target_log,
                    env=env,
                )
            )
            for process in processes[:-1]:
                process.stdout.close()
        return processes

    def finish(self, processes: list[Any]) -> Synced:
        statuses = [process.wait(timeout=_TIMEOUT_S) for process in processes]
        return Synced(
            statuses[0],
            statuses[-1],
            tap_log=(self.directory / "tap.log").read_text(),
            target_log=(self.directory / "target.log").read_text(),
            messages=[json.loads(line) for line in (self.directory / "messages").read_text().splitlines()],
            states=[json.loads(line) for line in (self.directory / "states").read_text().splitlines()],
            failures=self.failures(),
        )

    def sync(
        self, streams: dict[str, dict[str, Any]], state: dict[str, Any] | None = None, *, listen: bool = False
    ) -> Synced:
        """Run tap and target to their end."""
        return self.finish(self.start(streams, state, listen=listen))


def _connection(url: str) -> dict[str, Any]:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}
    return {name: int(str(parts[key])) if key == "port" else parts[key] for key, name in names.items()}


@pytest.fixture(scope="session")
def installed() -> Iterator[Callable[[str], Checkout]]:
    """Returns a project with both servers running, one for each PostgreSQL installation, created on first use."""
    with ExitStack() as stack:
        stack.callback(databases.close)
        made: dict[str, Checkout] = {}

        def get(installation: str) -> Checkout:
            if installation not in made:
                made[installation] = stack.enter_context(contextmanager(make_checkout)(installation, "up"))
            return made[installation]

        yield get


@pytest.fixture
def prepares(installed: Callable[[str], Checkout]) -> None:
    """Let both servers accept prepared transactions."""
    checkout = installed("embedded")
    changed = False
    for side in ("source", "warehouse"):
        with checkout.connect(side, "postgres") as connection:
            if connection.execute("show max_prepared_transactions").fetchone() == ("0",):
                connection.execute("alter system set max_prepared_transactions = 5")
                changed = True
    if changed:
        checkout.tidemark("down")
        checkout.tidemark("up")


@contextmanager
def making_pipes(installed: Callable[[str], Checkout]) -> Iterator[Callable[..., Pipe]]:
    """Yield what makes a pipe from one installation to another, with options for the source's CREATE DATABASE."""
    with ExitStack() as stack:

        def make(source: str = "embedded", warehouse: str = "embedded", options: str = "") -> Pipe:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemark-pipe-")))
            pipe = Pipe(
                stack.enter_context(fresh_database(installed(source), "source", options)),
                stack.enter_context(fresh_database(installed(warehouse), "warehouse")),
                directory,
            )
            stack.callback(pipe.sessions.close)
            return pipe

        yield make


@pytest.fixture
def make_pipe(installed: Callable[[str], Checkout]) -> Iterator[Callable[..., Pipe]]:
    """Makes pipes; see making_pipes."""
    with making_pipes(installed) as make:
        yield make


@pytest.fixture(scope="module")
def shared_pipe(installed: Callable[[str], Checkout]) -> Iterator[Pipe]:
    """A pipe for the runs of which several tests of a file look at a part each."""
    with making_pipes(installed) as make:
        yield make()


@pytest.fixture
def pipe(make_pipe: Callable[..., Pipe]) -> Pipe:
    """A pipe between two servers of the newest version."""
    return make_pipe("embedded", "embedded")


@pytest.fixture
def ascii_pipe(make_pipe: Callable[..., Pipe]) -> Pipe:
    """A pipe from a database in which text can be any bytes."""
    return make_pipe(options="encoding 'SQL_ASCII' template template0 locale 'C'")


def _pairs() -> list[Any]:
    """Return all pairs of installations. All but the one to another version are for `make test-long`."""
    pairs = [(a, b) for a in sorted(INSTALLATIONS, reverse=True) for b in sorted(INSTALLATIONS)]
    return [
        pytest.param((a, b), id=f"{a}-to-{b}", marks=[pytest.mark.long] if (a, b) != pairs[0] else []) for a, b in pairs
    ]


@pytest.fixture(params=_pairs())
def pipe_of_versions(request: pytest.FixtureRequest, make_pipe: Callable[..., Pipe]) -> Pipe:
    """A pipe between servers of each pair of versions."""
    return make_pipe(*request.param)


def kill(process: Any) -> None:
    """End a process as in a crash."""
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(
    params=[
        {"public-orders": INCREMENTAL},
        pytest.param({"public-orders": FULL_TABLE, "public-heap": FULL_TABLE}, marks=pytest.mark.long),
    ],
    ids=["incremental", "whole"],
)
def streams(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The streams of `tracked`."""
    return request.param


@pytest.fixture
def tracked(pipe: Pipe, installed: Callable[[str], Checkout], streams: dict[str, Any]) -> Pipe:
    """A pipe into a loaded warehouse with this project's roles, and with dbt's triggers on raw.orders and raw.heap."""
    from tests.singer.change_triggers import tracked_pipe  # noqa: PLC0415 - it imports this module

    password = dotenv_values(installed("embedded").root / ".env")["TARGET_POSTGRES_PASSWORD"]
    assert password
    return tracked_pipe(pipe, password, streams)
