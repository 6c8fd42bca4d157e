"""Imports a program's modules once, then forks a process for each request, which runs the program.

    python forks.py tap 3 /tmp/forks

The arguments are the program (tap, target, meltano, tidemark or dbt), the number of a listening socket, and a directory
for its files. The Python of the program's environment runs it, and imports the program at the first request. A request
is one line of JSON, sent with the three standard streams: the command line, patches to the program, the working
directory, the environment (null to keep either) and the umask. The answers are the process's id and, when it has ended,
its status as in `subprocess`. If the caller disappears before that, the process is killed. The server ends with its
standard input.

If a program's environment has FORKS, a JSON object of such sockets by program, the programs that it starts are forked
too: it starts fork.py in their place.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


def patch(names: list[str]) -> None:
    """Remove a part of the tap, so that a test can show that it is needed."""
    from singer_postgres.core.source import open_transactions, replication_key  # noqa: PLC0415

    if "no lookback" in names:
        from singer_postgres.tap import ordered_bookmark  # noqa: PLC0415 - not every environment has it

        replication_key.LOOKBACK_FLOOR_S = 0
        ordered_bookmark.LAG_ROWS = ordered_bookmark.FIRST_LAG_ROWS = 1
    if "no watermark" in names:
        read = open_transactions.read

        def blindfolded(connection: Any) -> open_transactions.OpenTransactions:
            found = read(connection)
            return open_transactions.OpenTransactions(found.now, found.now)

        open_transactions.read = blindfolded


def parse_once() -> None:
    """Let dbt reuse what it parsed for another test's servers: for another port it would parse again."""
    from dbt.adapters.postgres.connections import PostgresCredentials  # noqa: PLC0415

    from tidemark_dbt import command  # noqa: PLC0415

    keys = PostgresCredentials._connection_keys
    command._connection_keys = lambda self: tuple(key for key in keys(self) if key not in {"host", "port"})
    PostgresCredentials._connection_keys = command._connection_keys_but_name


# the dbt packages of a new clone
PACKAGES = ("transform/packages/in_place", "transform/packages/tidemark", "demo/shop")


def parse_beforehand(kept: str) -> Path:
    """Have dbt parse a new clone's project into the directory `kept`; return its partial-parse file.

    dbt generates code for its dataclasses and templates, and forked processes inherit that.
    """
    from dbt.cli.main import dbtRunner  # noqa: PLC0415
    from dbt.contracts.graph.manifest import Manifest  # noqa: PLC0415
    from dbt.parser.manifest import extended_mashumuro_decoder  # noqa: PLC0415
    from dbt_common.clients.jinja import template_cache  # noqa: PLC0415

    repository = Path(__file__).parent.parent
    project = Path(kept, "project", "transform")
    shutil.copytree(repository / "demo" / "project", project.parent)
    (project / "dbt_packages").mkdir()
    for package in PACKAGES:
        (project / "dbt_packages" / Path(package).name).symlink_to(repository / package)
    where = [f"--project-dir={project}", f"--profiles-dir={project / 'profiles'}", f"--target-path={kept}"]
    # after a process used dbt's static parser, a fork of it would wait for the parser for ever
    quietly = ["--log-level=none", "--log-level-file=none", "--no-static-parser"]
    done = dbtRunner().invoke([*quietly, "parse", f"--log-path={kept}", *where])
    if not done.success:
        raise SystemExit(f"dbt can't parse {project}: {done.exception}")
    parsed = Path(kept, "partial_parse.msgpack")
    manifest = Manifest.from_msgpack(parsed.read_bytes(), decoder=extended_mashumuro_decoder)
    for macro in manifest.macros.values():
        template_cache.get_node_template(macro)
    return parsed


def work_once() -> None:
    """Let dbt keep what it works out again for each event and each query, and write its files faster."""
    import parsedatetime  # noqa: PLC0415
    from dbt_common.clients import system  # noqa: PLC0415
    from dbt_common.events import functions  # noqa: PLC0415

    # the passwords in the environment, which are removed from each line of the log
    functions.env_secrets = functools.cache(functions.env_secrets)
    # what parses dates: made three times for each query's result
    parsedatetime.Constants = functools.cache(parsedatetime.Constants)
    # `json.dump` encodes in Python, and `json.dumps` in C
    system.json = SimpleNamespace(load=json.load, dump=lambda data, file, cls: file.write(json.dumps(data, cls=cls)))


def look_up_once() -> None:
    """Let Meltano keep what it works out again for each of the thousands of settings that it looks up in a run."""
    from meltano.core.plugin.settings_service import PluginSettingsService  # noqa: PLC0415
    from meltano.core.settings_service import SettingsService  # noqa: PLC0415

    as_bytes: dict[bytes, bytes] = {}
    decoded: dict[str, str] = {}

    def env(self: Any) -> dict[str, str]:
        """Decode the environment only if it was changed."""
        if as_bytes != (now := os.environ._data):  # type: ignore[attr-defined]
            as_bytes.clear()
            as_bytes.update(now)
            decoded.clear()
            decoded.update(os.environ)
        return {**decoded, **self.env_override}

    SettingsService.env = property(env)

    # the settings that are no extras, for the value of each extra: the same for all that one manager reads at once
    as_env = SettingsService.as_env

    def of_one_manager(self: Any, **options: Any) -> dict[str, str]:
        manager = options.get("source_manager")
        if manager is None:
            return as_env(self, **options)
        kept = manager.__dict__.setdefault("_as_env", {})
        key = (id(self), *sorted((name, str(value)) for name, value in options.items() if name != "source_manager"))
        if key not in kept:
            kept[key] = as_env(self, **options)
        return kept[key]

    SettingsService.as_env = of_one_manager

    for service in (SettingsService, PluginSettingsService):
        service.setting_env_vars = functools.cache(service.setting_env_vars)
    SettingsService.find_setting = functools.cache(SettingsService.find_setting)


def parse_yaml_in_c() -> None:
    """Have `yaml.safe_load` use libyaml, as it would if PyYAML chose for itself."""
    import yaml  # noqa: PLC0415

    yaml.__dict__["SafeLoader"] = yaml.CSafeLoader


def build_commands_once() -> None:
    """Let typer keep the commands that it makes from the signatures of all functions."""
    import typer.main  # noqa: PLC0415

    from tidemark.cli.app import app  # noqa: PLC0415

    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)


def configure_once() -> None:
    """Let the SDK keep what it reads in each run: its packages' versions, and the tests' logging, which is JSON too."""
    from importlib import metadata  # noqa: PLC0415

    from singer_sdk import _logging  # noqa: PLC0415

    packaging: Any = importlib.import_module("singer_sdk.helpers._packaging")
    modules: tuple[Any, ...] = (metadata, packaging.metadata)
    for module in modules:
        module.version = functools.cache(module.version)
    load = _logging._load_yaml_logging_config

    def load_json(path: Path) -> Any:
        try:
            return json.loads(path.read_bytes())
        except ValueError:
            return load(path)

    _logging._load_yaml_logging_config = load_json


def fork_what_it_starts(sockets: dict[str, str]) -> None:
    """Let this program start others through `sockets`."""
    begin = subprocess.Popen.__init__

    def ask(self: subprocess.Popen[Any], args: Any, *rest: Any, **options: Any) -> None:
        if not isinstance(args, (str, bytes)):
            args = list(args)
            if address := sockets.get(Path(args[0]).name):
                args = [sys.executable, "-IS", Path(__file__).with_name("fork.py"), address, *args]
        begin(self, args, *rest, **options)

    subprocess.Popen.__init__ = ask  # type: ignore[method-assign]


def resume(parsed: Path) -> None:
    """Let a forked dbt reuse what was parsed, and nothing else of the process that parsed it."""
    importlib.import_module("dbt_common.events.functions").env_secrets.cache_clear()
    tracker = importlib.import_module("multiprocessing.resource_tracker")._resource_tracker
    # its pipe was closed like all others
    tracker._fd = tracker._pid = None
    # `dbt deps` parses nothing
    target = os.environ.get("DBT_TARGET_PATH")
    if target is not None and not (own := Path(target, parsed.name)).exists():
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(parsed, own)


# modules that each program imports while it runs, except those that read the environment at import
IMPORTS = {
    # the driver first, as the program does: see sql_compat
    "tap": [
        *("psycopg2", "singer_postgres.singer.command", "singer_postgres.tap.tap"),
        *("singer_postgres.tap.fast_discovery", "psycopg.pq", "yaml"),
    ],
    "target": [
        *("singer_postgres.singer.command", "singer_postgres.target.target", "yaml", "importlib_metadata._adapters"),
        "email.headerregistry",
    ],
    "meltano": [
        *("meltano.cli", "meltano.core.db", "meltano.core.migration_service", "meltano.core.meltano_file"),
        *("meltano.core.state_store.azure.settings", "meltano.core.state_store.google.settings"),
        *("meltano.core.state_store.s3.settings", "meltano.migrations.utils.dialect_typing"),
        *("alembic.command", "alembic.config", "anyio._backends._asyncio", "concurrent_log_handler", "mako.template"),
        *("ruamel.yaml.mergevalue", "sqlite3", "sqlalchemy.dialects.mssql", "sqlalchemy.dialects.sqlite"),
        *("sqlalchemy.ext.compiler", "tidemark.logs.formatters", "tidemark.logs.run_log", "tzdata.zoneinfo"),
        *("pydantic.json_schema", "pydantic.networks", "pydantic.type_adapter"),
    ],
    "dbt": [
        *("dbt.cli.main", "dbt.task.build", "dbt.task.test", "dbt.task.freshness", "dbt.task.deps"),
        *("dbt.adapters.postgres", "dbt.parser.manifest", "tidemark_dbt.command"),
    ],
    "tidemark": [
        *("meltano.core.db", "meltano.core.migration_service", "meltano.core.state_service", "meltano.core.project"),
        *("meltano.core.plugin.settings_service", "meltano.core.plugin.singer.catalog", "meltano.core.plugin.utility"),
        *("meltano.core.schedule", "meltano.core.state_store.azure.settings", "meltano.core.meltano_file"),
        *("meltano.core.state_store.google.settings", "meltano.core.state_store.s3.settings", "meltano.core.task_sets"),
        *("jsonschema.validators", "rich._emoji_codes", "rich.live", "rich.status", "ruamel.yaml.mergevalue"),
        *("sqlalchemy.dialects.sqlite", "typer._adapters", "typer._click.decorators"),
        *("singer_postgres.core.source.backfill", "singer_postgres.core.source.replication_key"),
        *("singer_postgres.core.source.stream_query", "singer_postgres.core.warehouse.merge"),
        *("singer_postgres.core.warehouse.run_history", "singer_postgres.core.warehouse.run_lock"),
        *("singer_postgres.core.warehouse.state_table", "tidemark.cli.app", "tidemark.entry"),
        *("tidemark.backup.drill", "tidemark.backup.make", "tidemark.backup.restore", "tidemark.inspect.check.run"),
        *("tidemark.inspect.check.files", "tidemark.inspect.check.show", "tidemark.inspect.reconcile.run"),
        *("tidemark.inspect.reconcile.show", "tidemark.inspect.trace", "tidemark.project.meltano_state"),
        *("tidemark.project.work_dir", "tidemark.run.backfill", "tidemark.run.blocks", "tidemark.run.pipeline"),
        "tidemark.run.report",
    ],
}
ENTRIES = {
    "tap": ("singer_postgres.tap.entry", "main"),
    "target": ("singer_postgres.target.entry", "main"),
    "meltano": ("meltano.cli", "main"),
    "tidemark": ("tidemark.entry", "main"),
    "dbt": ("tidemark_dbt.entry", "main"),
}


def serve(listener: socket.socket) -> tuple[list[Any], list[int]]:
    """Fork at each request; return the request and its streams in the child."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    callers: dict[socket.socket, int] = {}
    while True:
        readable, _, _ = select.select([listener, woken, sys.stdin, *callers], [], [])
        if sys.stdin in readable:
            os._exit(0)
        if woken in readable:
            os.read(woken, 4096)
            bury(callers)
        # a caller sends nothing after its request, so a readable caller is gone
        for caller in callers.keys() & set(readable):
            os.kill(callers.pop(caller), signal.SIGKILL)
            caller.close()
        if listener in readable:
            caller, _ = listener.accept()
            request, streams, _, _ = socket.recv_fds(caller, 65_536, 3)
            while request[-1:] != b"\n":
                request += caller.recv(65_536)
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return json.loads(request), streams
            for stream in streams:
                os.close(stream)
            callers[caller] = pid
            with suppress(OSError):
                caller.sendall(f"{pid}\n".encode())


def leave(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and end this process, without the interpreter's clean-up.

    That frees one object after the other, and so copies the memory that this process shares with the one it was forked
    from: 50 ms for a tap, and more for dbt.
    """
    try:
        status: object = main()
    except SystemExit as ended:
        status = ended.code
    if status is None or isinstance(status, int):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit((status or 0) & 0xFF)
    sys.exit(status)  # type: ignore[arg-type]


def bury(callers: dict[socket.socket, int]) -> None:
    """Collect ended processes and report to their callers."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            for caller in [caller for caller, pid in callers.items() if pid == ended[0]]:
                del callers[caller]
                with caller, suppress(OSError):
                    caller.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())


if __name__ == "__main__":
    program, number, kept = sys.argv[1:]
    # imports take seconds, and a run of few tests needs few programs
    listener = socket.socket(fileno=int(number))
    select.select([listener, sys.stdin], [], [])
    if program in {"tap", "target"}:
        importlib.import_module("singer_postgres.singer.lazy_imports").install()
    parse_yaml_in_c()
    for module in IMPORTS[program]:
        importlib.import_module(module)
    if program in {"tap", "target"}:
        configure_once()
    if program == "dbt":
        parse_once()
        work_once()
        parsed = parse_beforehand(kept)
    if program in {"meltano", "tidemark"}:
        look_up_once()
    if program == "tidemark":
        build_commands_once()
    # the imported objects stay, and a search for cycles among new ones would copy the memory of what they refer to
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    (sys.argv, patches, directory, environment, umask), streams = serve(listener)
    for standard, stream in enumerate(streams):
        os.dup2(stream, standard)
    os.closerange(3, 64)
    if directory is not None:
        os.chdir(directory)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    if umask is not None:
        os.umask(umask)
    if "FORKS" in os.environ:
        fork_what_it_starts(json.loads(os.environ["FORKS"]))
    if program == "dbt":
        resume(parsed)
    if patches:
        patch(patches)
    module, function = ENTRIES[program]
    leave(getattr(importlib.import_module(module), function))
