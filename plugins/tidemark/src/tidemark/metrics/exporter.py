"""Reads all parts for one scrape, and serves the result or writes it to a file."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry
from prometheus_client import write_to_textfile as write
from prometheus_client.registry import Collector
from psycopg.rows import dict_row

from tidemark.errors import UsageError
from tidemark.metrics import catalogue, models, state, streams
from tidemark.metrics.backups import Backups
from tidemark.metrics.parts import Part
from tidemark.metrics.samples import Samples
from tidemark.metrics.schedules import Schedules
from tidemark.project import connections, database_settings, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg
    from prometheus_client.core import Metric as Family

    from tidemark.project.directory import Project

    Connection = psycopg.Connection[dict[str, Any]]

# Prometheus waits 10 s for a scrape. The warehouse and the models are read at once, and then the state.
_CONNECT_S, _WAREHOUSE_S, _STATE_S, _BACKUPS_S = 3, 5.0, 2.0, 2.0
# only if Meltano's files changed since the last scrape: Meltano is asked then
_SCHEDULES_S = 5.0
_READING = """
    set transaction isolation level repeatable read read only;
    set local statement_timeout = '3s'; set local lock_timeout = '1s'; set local timezone = 'UTC';
    set local datestyle = 'ISO'
"""


class Exporter(Collector):
    """The collector of all metrics. Each scrape reads all parts; scrapes at the same time wait for each other."""

    def __init__(self, project: Project, say: Callable[[str], None]) -> None:
        """Read nothing yet.

        Args:
            say: gets one line when a part can't be read, and when it can be read again.
        """
        self._project = project
        self._say = say
        self._backups = Backups(project)
        self._parts = {name: Part(name, say) for name in ("warehouse", "models", "schedules", "state", "backups")}
        self._alone = threading.Lock()
        # kept, so that a label stays the same while the schedules can't be read
        self._names: dict[str, str] = {}

    def collect(self) -> Iterator[Family]:
        """Return the families of one scrape."""
        yield from self.read()

    def read(self) -> Samples:
        """Read all parts. A part that does not answer delays the others by its deadline at most."""
        with self._alone:
            samples = Samples()
            samples.add(catalogue.BUILD, 1, metadata.version("tidemark"))
            samples.add(catalogue.LINKS, 1, *_links(self._project))
            parts = self._parts
            parts["models"].begin(self._models)
            streams_held = parts["warehouse"].read(self._streams, samples, limit_s=_WAREHOUSE_S)
            parts["models"].end(samples, limit_s=0.5)
            found, held = streams_held or ([], {})
            schedules = parts["schedules"].read(lambda own: self._schedules(own, found), samples, limit_s=_SCHEDULES_S)
            if schedules:
                parts["state"].read(
                    lambda own: state.tell(self._project, schedules, held, own), samples, limit_s=_STATE_S
                )
            parts["backups"].read(lambda own: self._backups.tell(own, patience_s=_BACKUPS_S), samples, limit_s=3)
            if schedules:
                self._names = schedules.names
            samples.name_sources(self._names)
        return samples

    def _streams(self, samples: Samples) -> tuple[list[tuple[str, str]], dict[tuple[str, str], str | None]]:
        with self._warehouse() as connection:
            tables = streams.SystemTables(connection)
            tables.tell(samples)
            samples.add(catalogue.SERVER, 1, _version(connection))
            return streams.collect(connection, tables, samples), streams.bookmarks(connection, tables)

    def _models(self, samples: Samples) -> None:
        with self._warehouse() as connection:
            models.collect(connection, streams.SystemTables(connection), self._marts, samples)

    def _schedules(self, samples: Samples, found: list[tuple[str, str]]) -> Schedules:
        schedules = Schedules(self._project)
        schedules.tell(samples, found)
        return schedules

    @property
    def _marts(self) -> str:
        return f"{variables.read(self._project).get('DBT_SCHEMA_PREFIX', '')}marts"

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
