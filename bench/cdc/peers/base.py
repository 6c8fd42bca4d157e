"""The interface of a tool that follows the table."""

from __future__ import annotations

import abc
import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import psutil
from psycopg import conninfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cdc.servers import Servers

PUBLICATION = "peers"
_TIMEOUT_S = 300
PATIENCE_S = 60
_PASSWORD = re.compile(r"(?<=:)[^:@/\s]+(?=@)|(?<=password=)\S+")


class Peer(abc.ABC):
    """A tool. Its tables are in a database of their own."""

    name: ClassVar[str]
    settings: ClassVar[str]
    """A description of the settings, with versions."""
    database: ClassVar[str]
    schema: ClassVar[str] = "raw"

    def __init__(self, servers: Servers, work: Path) -> None:
        self.servers = servers
        self.work = work
        """A directory that stays between sessions, for environments."""
        self.directory = work / self.database
        self.log = self.directory / "log"
        self.processes: list[Any] = []
        self.end = ""
        """Where the log ends that it is to load, for tools that want to know."""

    def prepare(self) -> None:  # noqa: B027 - not every tool needs this
        """Install what the tool needs.

        Raises:
            OSError: it can't be had here; says why.
        """

    @abc.abstractmethod
    def begin(self) -> None:
        """Make a slot and load the table, as of which nobody writes."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start to load what is in the log."""

    def finish(self) -> None:
        """Wait for what ends by itself."""
        try:
            statuses = [process.wait(timeout=PATIENCE_S) for process in self.processes]
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"did not end within {PATIENCE_S} s after the last change came") from None
        if any(statuses):
            raise RuntimeError(f"ended with status {statuses}: {self.said()}")

    def said(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return _PASSWORD.sub("…", " / ".join(lines[-3:])[-300:])

    def stop(self) -> None:
        """End what still runs, with its descendants."""
        for process in self.processes:
            if process.poll() is None:
                tree = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                process.wait()
                for each in tree:
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
        self.processes = []

    def slot(self, plugin: str) -> int:
        """Make a slot named as the tool's database, and return its position."""
        with self.servers.source() as connection:
            row = connection.execute(
                "select lsn - '0/0'::pg_lsn from pg_create_logical_replication_slot(%s, %s)", [self.database, plugin]
            ).fetchone()
        assert row
        return int(row[0])

    def copy(self, table: str = "public.items", columns: str = "") -> None:
        """Make the table in the warehouse and copy the rows; `columns` if it has others than the source."""
        schema = table.partition(".")[0]
        with self.servers.source() as source, self.servers.warehouse(self.database) as warehouse:
            row = source.execute(
                "select string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum), "
                "string_agg(quote_ident(attname), ', ' order by attnum) "
                "from pg_attribute where attrelid = 'items'::regclass and attnum > 0"
            ).fetchone()
            assert row
            warehouse.execute(f"create schema if not exists {schema}".encode())
            warehouse.execute(f"create table {table} ({columns or row[0]})".encode())
            with (
                source.cursor().copy(f"copy items ({row[1]}) to stdout".encode()) as out,
                warehouse.cursor().copy(f"copy {table} ({row[1]}) from stdin".encode()) as into,
            ):
                for block in out:
                    into.write(block)
            warehouse.execute(f"alter table {table} add primary key (id)".encode())
            warehouse.execute(f"vacuum analyze {table}".encode())

    def parts(self, side: str) -> dict[str, Any]:
        """Return host, port, user, password and dbname of the source, or of the tool's database."""
        url = self.servers.urls["source"] if side == "source" else self.servers.warehouse_url(self.database)
        return {**conninfo.conninfo_to_dict(url)}

    def uri(self, side: str) -> str:
        """Return the same as a URI."""
        return "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**self.parts(side))

    def run(self, command: Sequence[Any], *, out: IO[bytes] | None = None, cwd: Path | None = None) -> None:
        """Run a command to its end, and log what it says; `out` takes its output."""
        with self.log.open("ab") as log:
            done = subprocess.run(
                [str(word) for word in command],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=out or log,
                stderr=log,
                env=self.environment(),
                cwd=cwd,
                timeout=_TIMEOUT_S,
            )
        if done.returncode:
            raise OSError(f"{Path(command[0]).name} ended with status {done.returncode}: {self.said()}")

    def pipe(self, *commands: Sequence[Any], out: IO[bytes] | None = None, env: dict[str, str] | None = None) -> None:
        """Start commands, each piped into the next; all errors are logged, and the last one's output without `out`."""
        self.processes = []
        with self.log.open("ab") as log:
            for command in commands:
                before = self.processes[-1].stdout if self.processes else subprocess.DEVNULL
                last = command is commands[-1]
                self.processes.append(
                    subprocess.Popen(
                        [str(word) for word in command],
                        stdin=before,
                        stdout=(out or log) if last else subprocess.PIPE,
                        stderr=log,
                        env={**self.environment(), **(env or {})},
                        # a tool may interrupt its whole process group, which must not be ours
                        start_new_session=True,
                    )
                )
        for process in self.processes[:-1]:
            process.stdout.close()

    def environment(self) -> dict[str, str]:
        """Return an environment without variables that would change a tool's settings."""
        ours = ("PG", "TAP_", "TARGET_", "MELTANO_", "DBT_", "TIDEMARK_")
        return {k: v for k, v in os.environ.items() if not k.startswith(ours) and k != "PYTHONDONTWRITEBYTECODE"}
