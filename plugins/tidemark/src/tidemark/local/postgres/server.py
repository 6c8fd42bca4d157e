"""One embedded server: its data directory, and how to start and stop it.

The server outlives the command that started it. Only `Server.delete` deletes data.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from psycopg import sql

from tidemark import roles
from tidemark.errors import TidemarkError, UsageError
from tidemark.local.postgres import binaries, home
from tidemark.local.postgres.account import Account, account_for
from tidemark.local.postgres.server_errors import server_error
from tidemark.project import database_settings
from tidemark.project.connections import connect
from tidemark.project.database_settings import LOOPBACK

if TYPE_CHECKING:
    from tidemark.local.postgres.binaries import Binaries
    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project

_TIMEOUT_S = 60
_REMAINS_S = 20


@dataclass(frozen=True)
class Running:
    """A running server, as the postmaster.pid of its data directory describes it."""

    pid: int
    port: int
    # the data directory as the server knows it
    data: Path


class Server:
    """The embedded server of one database."""

    def __init__(self, side: DatabaseSettings, project: Project) -> None:
        """Describe the server of `side`. This changes nothing."""
        self.side = side
        self.project = project
        self.directory = home.find(project) / side.side
        self._programs: Binaries

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / "data"

    @property
    def admin(self) -> DatabaseSettings:
        """The database's settings with the server's owner as the role."""
        return database_settings.admin(self.project, self.side)

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "server.log"

    @property
    def account(self) -> Account:
        """The operating system user of the server."""
        return account_for(self.data, self.project.root)

    def check(self) -> bool:
        """Check that the server runs or can be started. Return whether it must be started. This changes nothing.

        Raises:
            UsageError: the server can't be started.
        """
        if running := self.running():
            if running.data != self.data:
                # it still runs, but looks for its time zones and libraries in the old place
                raise UsageError(
                    f"The {self.side.side} server (pid {running.pid}) was started in {running.data}, and its "
                    f"data is now in {self.data}; run `tidemark down` first, then this again."
                )
            if running.port != self.side.port:
                raise UsageError(
                    f"The {self.side.side} server runs on port {running.port} (pid {running.pid}), and "
                    f"{self.side.prefix}_PORT says {self.side.port}; run `tidemark down` first, then this again."
                )
            return False
        programs = self._find_programs()
        if self.data.exists():
            self._await_remains()
            self._refuse_foreign_pid_file()
            self._refuse_other_major(programs)
            self._refuse_lost_password()
        self._refuse_taken_port()
        return True

    def prepare(self) -> None:
        """Create what the servers share: the directory of all data, and the programs' copy. Call this one at a time."""
        home.make(self.project, self.account)
        self.directory = home.find(self.project) / self.side.side
        self._programs = binaries.for_servers(self._find_programs(), self.account, home.find(self.project))

    def _find_programs(self) -> Binaries:
        return binaries.find(database_settings.postgres_bin(self.project))

    def running(self) -> Running | None:
        """Return the server that runs on the data directory; None if there is none.

        Raises:
            UsageError: the data directory belongs to another user.
        """
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        except PermissionError:
            raise UsageError(
                f"The data directory {self.data} belongs to user {self.directory.stat().st_uid} and you are user "
                f"{os.geteuid()}; run this as that user or as root."
            ) from None
        # the first line is the pid, the fourth the port; with fewer lines, the file is incomplete
        if len(lines) < 4 or not lines[0].isdigit() or not _is_server(int(lines[0]), self.data):  # noqa: PLR2004
            return None
        return Running(int(lines[0]), int(lines[3]), Path(lines[1]))

    def exists(self) -> bool:
        """Return whether the data directory exists."""
        return self.directory.exists()

    def start(self) -> None:
        """Start the server. Create its data first if there is none. Call `prepare` before this.

        Raises:
            TidemarkError: PostgreSQL failed.
        """
        if not self.data.exists():
            self._initialise()
        self._launch()

    def make_database(self) -> None:
        """Create the database on the running server, unless it exists."""
        with connect(self.admin, database="postgres") as connection:
            name = self.side.database
            if connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))

    def make_roles(self) -> None:
        """Create the roles that a run connects as, with the passwords that are set for them."""
        # the user creates roles with other names
        passwords = {side.user: side.password for side in self._logins() if side.password and side.user in roles.LOGINS}
        roles.apply(self.admin, passwords)

    def _logins(self) -> list[DatabaseSettings]:
        if isinstance(self.side, database_settings.Warehouse):
            logins = (database_settings.transformer, database_settings.monitor, database_settings.reporter)
            return [self.side, *(login(self.project, self.side) for login in logins)]
        return [self.side]

    def stop(self) -> bool:
        """Stop the server, and return whether it ran.

        Raises:
            TidemarkError: the server doesn't end.
        """
        running = self.running()
        if running is None:
            return False
        # PostgreSQL's fast shutdown. Unlike pg_ctl, a signal needs no programs of the right version.
        os.kill(running.pid, signal.SIGINT)
        deadline = time.monotonic() + _TIMEOUT_S
        # don't wait until the process disappears: in a container, nobody may ever reap it
        while _is_server(running.pid, self.data):
            if time.monotonic() > deadline:
                raise TidemarkError(
                    f"The {self.side.side} server (pid {running.pid}) did not end in {_TIMEOUT_S} s; see {self.log}."
                )
            time.sleep(0.05)
        return True

    def delete(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=False)

    def _await_remains(self) -> None:
        """Wait until the processes of a killed server have ended. Until then they keep its port and its memory."""
        path = self.data / "postmaster.pid"
        deadline = time.monotonic() + _REMAINS_S
        while path.exists() and _remains(path, self.data) and time.monotonic() < deadline:
            time.sleep(0.1)

    def _refuse_foreign_pid_file(self) -> None:
        """Raise if a stale pid file names another program's process. PostgreSQL removes all other stale pid files."""
        path = self.data / "postmaster.pid"
        word = path.read_text().split(maxsplit=1)[:1] if path.exists() else []
        if word and word[0].isdigit() and psutil.pid_exists(pid := int(word[0])) and not _is_server(pid, self.data):
            raise UsageError(
                f"{path} is left from a server that died, and its pid {pid} is now another program "
                f"({_program(pid)}); no server runs on this data, so remove that file and run this again."
            )

    def _refuse_other_major(self, programs: Binaries) -> None:
        major = (self.data / "PG_VERSION").read_text().strip()
        if major != str(programs.major):
            raise UsageError(
                f"The data directory {self.data} was made by PostgreSQL {major} and {programs['postgres']} is "
                f"{programs.major}; set TIDEMARK_POSTGRES_BIN to the bin directory of a PostgreSQL {major}, "
                "or delete its data with `tidemark reset`."
            )

    def _refuse_lost_password(self) -> None:
        if self.admin.password is None:
            raise UsageError(
                f"TIDEMARK_ADMIN_PASSWORD is not set and the data directory {self.data} was made with one; put it "
                "back in .env, or delete its data with `tidemark reset`."
            )

    def _refuse_taken_port(self) -> None:
        port = self.side.port
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except PermissionError:
                raise UsageError(
                    f"Port {port} is not open to user {os.geteuid()}; set {self.side.prefix}_PORT to one above 1023."
                ) from None
            except OSError:
                raise UsageError(
                    f"Port {port} for the {self.side.side} server is taken{_holder(port)}; end that program, or set "
                    f"{self.side.prefix}_PORT to a free port, or {self.side.prefix}_HOST to use that server as it is."
                ) from None

    def _initialise(self) -> None:
        """Create the data directory under another name and rename it, so that a half-made one is never used."""
        if self.admin.password is None:
            raise UsageError("TIDEMARK_ADMIN_PASSWORD is not set; put one in .env.")
        self.directory.mkdir(exist_ok=True)
        self.account.own(self.directory)
        for left_over in self.directory.glob("initialising-*"):
            shutil.rmtree(left_over)
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="initialising-") as name:
            scratch = Path(name)
            self.account.own(scratch)
            password_file = scratch / "password"
            password_file.write_text(self.admin.password.get_secret_value())
            password_file.chmod(0o600)
            self.account.own(password_file)
            self._run(
                *("initdb", "-D", str(scratch / "data"), "-U", self.admin.user, f"--pwfile={password_file}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
            )
            (scratch / "data").rename(self.data)

    def _launch(self) -> None:
        options = {
            "port": str(self.side.port),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
        }
        log_start = self.log.stat().st_size if self.log.exists() else 0
        self._run(
            *("pg_ctl", "start", "-D", str(self.data), "-l", str(self.log), "-w", "-t", str(_TIMEOUT_S)),
            *("-o", " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())),
            log_start=log_start,
        )

    def _run(self, program: str, *arguments: str, log_start: int | None = None) -> None:
        """Run a server program as the server's user. Ctrl-C in our terminal doesn't reach it.

        Raises:
            TidemarkError: it failed. The reason comes from its output, or from the server's log after `log_start`.
        """
        done = subprocess.run(
            [self._programs[program], *arguments],
            check=False,
            cwd=self.directory,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,
            **self.account.popen,
        )
        if done.returncode == 0:
            return
        said = done.stderr + done.stdout
        if log_start is not None and self.log.exists():
            with self.log.open(errors="replace") as log:
                log.seek(log_start)
                said = log.read() + said
        raise TidemarkError(server_error(said, program=program, side=self.side.side, directory=self.directory))


def _is_server(pid: int, data: Path) -> bool:
    """Return whether process `pid` is a PostgreSQL server on `data`, even if that was moved after the start."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or not process.name().startswith("postgres"):
            return False
        # a server's working directory is its data directory; its arguments don't follow a move
        return Path(process.cwd()).samefile(data)
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except (psutil.AccessDenied, PermissionError):
        # another user's process: the checks of its name and of the pid file must be enough
        return True


def _remains(pid_file: Path, data: Path) -> bool:
    """Return whether processes of a dead server still exist, including its own zombie."""
    word = pid_file.read_text().split(maxsplit=1)[:1]
    if word and word[0].isdigit():
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(int(word[0])).status() == psutil.STATUS_ZOMBIE:
                return True
    return any(
        process.info["name"].startswith("postgres") and _is_server(process.pid, data)
        for process in psutil.process_iter(["name"])
    )


def _program(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "unknown"


def _holder(port: int) -> str:
    """Return ' by NAME (pid N)' for the process that listens on `port`; '' if the system doesn't say."""
    try:
        for found in psutil.net_connections("tcp"):
            if found.laddr and found.laddr.port == port and found.status == psutil.CONN_LISTEN and found.pid:
                return f" by {_program(found.pid)} (pid {found.pid})"
    except psutil.AccessDenied:
        pass
    return ""
