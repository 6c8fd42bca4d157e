"""dbt's own command line, which takes the lock as soon as the profile is known."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from dbt.adapters.postgres.connections import PostgresConnectionManager, PostgresCredentials
from dbt.cli import requires
from dbt.cli.exceptions import ExceptionExit, ResultExit
from dbt.cli.main import cli
from dbt.flags import get_flags
from dbt_common.exceptions import DbtBaseException

from tidemark_dbt import compiled_macros, config_values, packages, reporting, source_parts, unfinished_loads
from tidemark_dbt.build_lock import BuildLock, BusyError, open_unlimited, require_session

if TYPE_CHECKING:
    from types import FrameType

    from dbt.config.profile import Profile

# all other commands only read, or write files
_WRITING = frozenset({"run", "build", "test", "snapshot", "seed", "retry", "clone", "run-operation"})
# the commands among those that connect; `debug` reports its own findings
_READING = frozenset({"compile", "freshness", "generate", "show"})
_load_profile = requires.load_profile
_connection_keys = PostgresCredentials._connection_keys  # noqa: SLF001
# replaces the exit status that dbt would choose
_status: int | None = None
_left_out = unfinished_loads.LeftOut()
# the role that dbt connects as, once the profile is known
_role: str | None = None


class Interruption(KeyboardInterrupt, DbtBaseException):
    """Ctrl-C or SIGTERM. dbt cancels its queries for a KeyboardInterrupt, and prints no traceback for its own error."""


def run(*, starter: int | None) -> NoReturn:
    """Run dbt with the arguments of this process and exit with its status.

    Args:
        starter: the pid of the process that started this one; this one must not outlive it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # dbt calls this after it has read its command line and before it connects
    requires.load_profile = partial(_load_profile_and_lock, starter)
    PostgresCredentials._connection_keys = _connection_keys_but_name  # noqa: SLF001
    PostgresConnectionManager.open = staticmethod(open_unlimited)
    config_values.refuse_relations()
    asked = source_parts.follow()
    status = _run()
    # the last part begins only after all others succeeded
    if not status and not _left_out and (asked.everything or asked.is_last):
        _keep_manifest()
    sys.exit(status if _status is None else _status)


def _run() -> int:
    """Run dbt's command line; return its exit status, and report a failure to the run that started dbt."""
    try:
        done = cli(prog_name="dbt", standalone_mode=False, obj={"callbacks": [reporting.on_event]})
    except ResultExit as end:
        reporting.failed_results(getattr(end.result, "results", ()), _role)
        _say_freshness_off()
        return int(end.exit_code)
    except ExceptionExit as end:
        reporting.failed(end.exception, _role)
        return int(end.exit_code)
    except click.ClickException as error:
        error.show()
        reporting.failed(error, _role)
        return int(error.exit_code)
    _say_freshness_off()
    # click returns a status if it ends the command itself, as for --help
    return done if isinstance(done, int) else 0


def _say_freshness_off() -> None:
    """After `source freshness`, say which tables it did not look at: dbt itself says nothing."""
    flags = get_flags()
    if getattr(flags, "WHICH", None) != "freshness":
        return
    with suppress(OSError, ValueError):
        manifest = json.loads((Path(flags.TARGET_PATH or "target") / "manifest.json").read_text(encoding="utf-8"))
        if said := reporting.freshness_off(manifest):
            sys.stdout.write(f"{said}\n")
            sys.stdout.flush()


def _connection_keys_but_name(credentials: PostgresCredentials) -> tuple[str, ...]:
    """Return the keys that identify a profile, but not the sessions' name: if it changes, dbt parses all again."""
    return tuple(key for key in _connection_keys(credentials) if key != "application_name")


def _keep_manifest() -> None:
    """Keep the manifest of a successful whole run: later runs compare changes with it, and defer to it.

    A partial run's manifest says nothing about the rest, one of a developer's own schemas concerns nobody else, and one
    with --empty has no rows to defer to.
    """
    flags = get_flags()
    directory = os.environ.get("DBT_GOOD_RUN_PATH")
    whole = not any(getattr(flags, name, None) for name in ("SELECT", "EXCLUDE", "SELECTOR", "EMPTY"))
    if flags.WHICH not in {"run", "build"} or not whole or not directory or os.environ.get("DBT_SCHEMA_PREFIX"):
        return
    kept = Path(directory)
    kept.mkdir(parents=True, exist_ok=True)
    made = kept / "manifest.json.new"
    shutil.copyfile(Path(flags.TARGET_PATH or "target") / "manifest.json", made)
    # atomically, for concurrent readers
    made.replace(kept / "manifest.json")


def _load_profile_and_lock(starter: int | None, *args: object) -> Profile:
    global _status, _role  # noqa: PLW0603
    flags = get_flags()
    project = Path(flags.PROJECT_DIR)
    packages.install_missing(project)
    compiled_macros.keep(project / (flags.TARGET_PATH or "target") / "compiled_macros")
    profile = _load_profile(*args)
    if profile.credentials.type != "postgres":
        return profile
    _role = profile.credentials.user
    if get_flags().WHICH in _READING:
        require_session(profile.credentials)
    if get_flags().WHICH in _WRITING:
        lock = BuildLock(profile.credentials)
        try:
            lock.acquire(starter=starter)
        except BusyError:
            _status = os.EX_TEMPFAIL
            raise
        _left_out.leave_out(unfinished_loads.find(lock.session))
        profile.credentials = profile.credentials.replace(application_name=lock.name)
    return profile


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    global _status  # noqa: PLW0603
    _status = 128 + number
    raise Interruption("Interrupted.")
