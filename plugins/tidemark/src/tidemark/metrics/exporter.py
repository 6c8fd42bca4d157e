"""Reads all parts for one scrape, and serves the result or writes it to a file."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

import psycopg
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, start_http_server
from prometheus_client import write_to_textfile as write
from prometheus_client.registry import Collector
from psycopg.rows import dict_row

from singer_postgres.core.errors import SingerPostgresError, one_line
from tidemark.errors import TidemarkError, UsageError
from tidemark.metrics import catalogue, models, state, streams
from tidemark.metrics.backups import Backups
from tidemark.metrics.samples import Samples
from tidemark.metrics.schedules import Schedules
from tidemark.project import connections, database_settings, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from prometheus_client.core import Metric as Family

    from tidemark.project.directory import Project

    Connection = psycopg.Connection[dict[str, Any]]

# together less than Prometheus waits for a scrape by default, which is 10 s
_CONNECT_S = 3
_BACKUPS_S = 2.0
_READING = """
    set transaction isolation level repeatable read read only;
    set local statement_timeout = '3s'; set local lock_timeout = '1s'; set local timezone = 'UTC';
    set local datestyle = 'ISO'
"""
_ERRORS = (psycopg.Error, sqlite3.Error, TidemarkError, SingerPostgresError, OSError, ValueError)


class Exporter(Collector):
    """The collector of all metrics. Each scrape reads all parts anew; scrapes at the same time wait for each other."""

    def __init__(self, project: Project, say: Callable[[str], None]) -> None:
        """Read nothing yet.

        Args:
            say: gets one line when a part can't be read, and when it can be read again.
        """
        self._project = project
        self._say = say
        self._backups = Backups(project)
        self._failing: dict[str, str] = {}
        self._alone = threading.Lock()

    def collect(self) -> Iterator[Family]:
        """Return the families of one scrape."""
        yield from self.read()

    def read(self) -> Samples:
        """Read all parts."""
        with self._alone:
            samples = Samples()
            samples.add(catalogue.BUILD, 1, metadata.version("tidemark"))
            samples.add(catalogue.LINKS, 1, *_links(self._project))
            found: list[tuple[str, str]] = []
            held: dict[tuple[str, str], str | None] = {}
            with self._part("warehouse", samples), self._warehouse() as connection:
                tables = streams.SystemTables(connection)
                tables.tell(samples)
                samples.add(catalogue.SERVER, 1, _version(connection))
                found = streams.collect(connection, tables, samples)
                held = streams.bookmarks(connection, tables)
                with self._part("models", samples):
                    models.collect(connection, tables, self._marts, samples)
            schedules = None
            with self._part("schedules", samples):
                schedules = Schedules(self._project)
                schedules.tell(samples, found)
            if schedules:
                with self._part("state", samples):
                    state.tell(self._project, schedules, held, samples)
            with self._part("backups", samples):
                self._backups.tell(samples, patience_s=_BACKUPS_S)
        return samples

    @property
    def _marts(self) -> str:
        return f"{variables.read(self._project).get('DBT_SCHEMA_PREFIX', '')}marts"

    @contextmanager
    def _part(self, name: str, samples: Samples) -> Iterator[None]:
        """Read a part, and say whether that was possible."""
        began, failed = time.monotonic(), ""
        try:
            yield
        except _ERRORS as error:
            failed = one_line(error) or type(error).__name__
        if failed != self._failing.get(name, ""):
            self._failing[name] = failed
            self._say(f"{name}: {failed or 'can be read again'}")
        samples.add(catalogue.UP, not failed, name)
        samples.add(catalogue.SCRAPE_SECONDS, time.monotonic() - began, name)

    @contextmanager
    def _warehouse(self) -> Iterator[Connection]:
        _, warehouse = database_settings.read(self._project)
        login = database_settings.monitor(self._project, warehouse)
        with connections.connect(login, any_pool=True, timeout_s=_CONNECT_S) as connection:
            connection.row_factory = dict_row
            # a pooler's next server session does not have the prepared statement
            connection.prepare_threshold = None
            with connection.transaction():
                connection.execute(_READING)
                yield connection


def _links(project: Project) -> tuple[str, str]:
    """Return the addresses of Airflow and of the runbook; empty if the latter is not published."""
    known = variables.read(project)
    return known.get("AIRFLOW__API__BASE_URL") or "http://localhost:8080", known.get(
        "TIDEMARK_ALERTS_RUNBOOK_URL"
    ) or ""


def _version(connection: Connection) -> str:
    return (connection.info.parameter_status("server_version") or "unknown").partition(" ")[0]


def registry(exporter: Exporter) -> CollectorRegistry:
    """Return a registry with our metrics, and those of this process."""
    found = CollectorRegistry()
    for each in (exporter, PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        found.register(each)
    return found


def serve(exporter: Exporter, host: str, port: int) -> Callable[[], None]:
    """Serve scrapes from a thread. Return a function that ends that.

    Raises:
        UsageError: the address can't be listened on.
    """
    try:
        server, thread = start_http_server(port, host, registry(exporter))
    except OSError as error:
        raise UsageError(f"{host}:{port} can't be listened on: {error.strerror}; name another --port.") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end


def write_textfile(exporter: Exporter, path: Path) -> None:
    """Write one scrape to a file that node_exporter's textfile collector reads. It is never there in part.

    Raises:
        UsageError: it can't be written.
    """
    if path.suffix != ".prom":
        raise UsageError(f"{path} must end in .prom: node_exporter reads no other files.")
    found = CollectorRegistry()
    found.register(exporter)
    try:
        write(str(path), found)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.") from error
