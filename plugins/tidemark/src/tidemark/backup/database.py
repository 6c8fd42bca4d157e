"""Restores a database beside the existing one, and swaps the two by renaming them."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import conninfo, errors, sql

from singer_postgres.core import advisory_locks
from tidemark.backup import clients, contents, settings
from tidemark.backup.programs import KEEPALIVES, Program
from tidemark.errors import BackupError, BusyError, UsageError
from tidemark.project import connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tidemark.backup.manifest import Database
    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project

    Connection = psycopg.Connection[Any]

_MAINTENANCE = "postgres"
_LONGEST_NAME = 63
_RENAME_S = 20
_END_SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()"
# In another cluster, the transaction ids of the old one may be far in the future. Until that cluster reaches them, each
# build would treat the rows as new. So the restored rows get the oldest id.
_RENUMBER = """
    create schema tidemark_restore;
    create function tidemark_restore.renumber() returns trigger language plpgsql as $$
    begin
        return jsonb_populate_record(new, tg_argv[0]::jsonb);
    end $$;
"""
_NUMBERED = """
    select nspname, relname, jsonb_object_agg(attname, '3')::text
    from pg_attribute join pg_class c on c.oid = attrelid join pg_namespace n on n.oid = relnamespace
    where atttypid = 'xid8'::regtype and relkind = 'r' and attnum > 0 and not attisdropped
        and nspname !~ '^pg_' and relname <> '_tidemark_models'
    group by 1, 2
"""
# the rights on what a dump contains, in pg_restore's list
_RIGHTS = re.compile(r"\d+; \d+ \d+ (DEFAULT )?ACL ")
_MAY_CREATE = """
    select nspname, rolname from pg_namespace cross join aclexplode(nspacl) join pg_roles r on r.oid = grantee
    where privilege_type = 'CREATE' and grantee <> nspowner and rolname = any(%s)
"""


def refuse_runs(side: DatabaseSettings) -> None:
    """Raise if a run uses the database.

    Raises:
        BusyError: a run uses it.
    """
    with connections.connect(side) as connection:
        # a run here or on another machine holds one of Tidemark's locks
        if who := advisory_locks.holder(connection, names="tidemark%"):
            raise BusyError(f"Another run uses the {side} ({who}). Wait until it ends, then run this again.")


def missing_roles(side: DatabaseSettings, was: Database) -> list[str]:
    """Return the roles that the dump needs and the server lacks."""
    granted = {role for role, _, _ in was.grants} | {role for role, _ in was.settings if role}
    with connections.connect(side, database=_MAINTENANCE) as connection:
        there = {role for (role,) in connection.execute("select rolname from pg_roles")}
    return sorted({*was.roles, was.owner, *granted} - {"public"} - there)


def refuse_missing_roles(side: DatabaseSettings, was: Database) -> None:
    """Raise if the server lacks roles that the dump needs.

    Raises:
        UsageError: roles are missing.
    """
    if missing := missing_roles(side, was):
        made = " ".join(sql.SQL("CREATE ROLE {};").format(sql.Identifier(role)).as_string() for role in missing)
        raise UsageError(
            f"The {side}'s server lacks roles that own tables of the backup or have grants on them. Create them with "
            f"`tidemark roles {side.side}`, or: {made}"
        )


@contextmanager
def restored(  # noqa: PLR0913 - everything that it needs
    project: Project,
    side: DatabaseSettings,
    was: Database,
    directory: Path,
    *,
    jobs: int,
    lock: int,
    any_locale: bool = False,
) -> Iterator[str]:
    """Yield the name of a new database with the dump's contents, verified. It is dropped unless it was swapped in.

    Args:
        side: the server, with a role that may create databases.
        any_locale: if the server lacks the dump's locale, use C.

    Raises:
        UsageError: no pg_restore is new enough, or the role lacks a right.
        TidemarkError: pg_restore failed, or the restored contents differ from the dump.
    """
    programs = clients.find(project, side, at_least=was.client, compression=was.compression)
    name = f"{side.database[: _LONGEST_NAME - 10]}_restoring"
    _drop(side, name)
    try:
        with _explained(side, "The backup can't be restored"):
            _create(side, name, was, any_locale=any_locale)
            with connections.connect(side, database=name) as connection:
                _fill(connection, side, was, [programs["pg_restore"], str(directory), f"--jobs={jobs}"], lock)
                connection.execute("analyze")
        with contents.read(side, name) as there:
            if found := there.differences(was):
                more = f" and {len(found) - 3} more" if len(found) > 3 else ""  # noqa: PLR2004
                raise BackupError(
                    f"The restored database differs from the dump: {'; '.join(found[:3])}{more}. It was dropped again; "
                    "choose another backup: `tidemark backup list`."
                )
        yield name
    finally:
        # after a swap it no longer exists
        _drop(side, name)


def _create(side: DatabaseSettings, name: str, was: Database, *, any_locale: bool) -> None:
    plain = was.model_copy(update={"provider": "c", "collate": "C", "ctype": "C", "locale": None})
    with connections.connect(side, database=_MAINTENANCE) as connection:
        try:
            connection.execute(_creation(name, was))
        except psycopg.Error:
            if not any_locale:
                raise
            connection.execute(_creation(name, plain))
        # pg_dump leaves these out, because they belong to the database itself
        database = sql.Identifier(name)
        connection.execute(sql.SQL("revoke all on database {} from public").format(database))
        for role, privilege, grantable in was.grants:
            connection.execute(
                sql.SQL("grant {} on database {} to {}{}").format(
                    sql.SQL(privilege),
                    database,
                    sql.SQL("public") if role == "public" else sql.Identifier(role),
                    sql.SQL(" with grant option" if grantable else ""),
                )
            )
        if not was.grants:
            connection.execute(sql.SQL("grant connect, temporary on database {} to public").format(database))
        for for_role, setting in was.settings:
            variable, _, value = setting.partition("=")
            whose = sql.SQL("role {} in database {}").format(sql.Identifier(for_role), database) if for_role else None
            connection.execute(
                sql.SQL("alter {} set {} to {}").format(
                    whose or sql.SQL("database {}").format(database), sql.Identifier(variable), sql.Literal(value)
                )
            )


def _creation(name: str, was: Database) -> sql.Composed:
    def option(text: str, value: str | None) -> sql.Composable:
        return sql.SQL(text + " {}").format(sql.Literal(value)) if value else sql.SQL("")

    return sql.SQL("create database {} template template0 owner {} {} {} {} {} {}").format(
        sql.Identifier(name),
        sql.Identifier(was.owner),
        option("encoding", was.encoding),
        option("lc_collate", was.collate),
        option("lc_ctype", was.ctype),
        option("locale_provider", {"i": "icu", "b": "builtin"}.get(was.provider)),
        option("builtin_locale" if was.provider == "b" else "icu_locale", was.locale),
    )


def _fill(connection: Connection, side: DatabaseSettings, was: Database, command: list[str], lock: int) -> None:
    row = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
    elsewhere = row is None or row[0] != was.cluster
    # pg_restore parses a name that contains "=" as a connection string
    into = f"--dbname={conninfo.make_conninfo(KEEPALIVES, dbname=connection.info.dbname)}", "--no-password"

    def run(*options: str) -> None:
        with Program([*command, *options], side, lock, full=f"the server of the {side}") as program:
            program.wait()

    for section in ("pre-data", "data", "post-data"):
        if section == "pre-data" and not _is_superuser(connection):
            _define(connection, was, run, into)
        else:
            run(*into, f"--section={section}")
        if section == "pre-data" and elsewhere:
            connection.execute(_RENUMBER)
            for schema, table, values in connection.execute(_NUMBERED).fetchall():
                connection.execute(
                    sql.SQL(
                        "create trigger tidemark_restore before insert on {} for each row "
                        "execute function tidemark_restore.renumber({})"
                    ).format(sql.Identifier(schema, table), sql.Literal(values))
                )
        if section == "data" and elsewhere:
            connection.execute("set client_min_messages = warning; drop schema tidemark_restore cascade")


def _is_superuser(connection: Connection) -> bool:
    row = connection.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
    return row is not None and bool(row[0])


def _define(connection: Connection, was: Database, run: Callable[..., None], into: tuple[str, ...]) -> None:
    """Restore all definitions as a role that is no superuser.

    It can give an object only to a role that may create in the object's schema, and some owners may not: the loader has
    functions in `tidemark`, the schema of dbt's role. So all owners may, until the dump's rights are restored.
    """
    with tempfile.TemporaryDirectory(prefix="tidemark-restore-") as directory:
        contents_file, rights_file = Path(directory, "contents"), Path(directory, "rights")
        run("--list", "--section=pre-data", f"--file={contents_file}")
        # an entry ends with its owner
        entries = contents_file.read_text(errors="surrogateescape").splitlines()
        rights = [entry for entry in entries if _RIGHTS.match(entry)]
        rights_file.write_text("\n".join([*rights, ""]), errors="surrogateescape")
        owners = [role for role in was.roles if any(entry.endswith(f" {role}") for entry in entries)]
        _let_create(connection, owners)
        run(*into, "--section=pre-data", "--no-privileges")
        _no_longer_let_create(connection, owners)
        if rights:
            run(*into, f"--use-list={rights_file}")


def _let_create(connection: Connection, roles: list[str]) -> None:
    """Let roles create in the schema public, and in each schema that the connection's role creates from now on."""
    for role in map(sql.Identifier, roles):
        connection.execute(sql.SQL("alter default privileges grant create on schemas to {}").format(role))
        connection.execute(sql.SQL("grant create on schema public to {}").format(role))


def _no_longer_let_create(connection: Connection, roles: list[str]) -> None:
    for role in map(sql.Identifier, roles):
        connection.execute(sql.SQL("alter default privileges revoke create on schemas from {}").format(role))
    for schema, role in connection.execute(_MAY_CREATE, [roles]).fetchall():
        names = sql.Identifier(schema), sql.Identifier(role)
        connection.execute(sql.SQL("revoke create on schema {} from {}").format(*names))


def swap(side: DatabaseSettings, new: str, *, aside: str | None) -> None:
    """Rename the database of `side` to `aside` and the new one to its name. Without `aside`, drop the old one.

    Raises:
        BusyError: new sessions keep connecting; nothing has changed.
        TidemarkError: the server refused; nothing has changed.
    """
    live = side.database
    parked = aside or f"{side.database[: _LONGEST_NAME - 10]}_replaced"
    with (
        connections.connect(side, database=_MAINTENANCE) as connection,
        _explained(side, "The databases can't be swapped"),
    ):
        _rename(connection, live, parked, side)
        try:
            _rename(connection, new, live, side)
        except BaseException:
            _rename(connection, parked, live, side)
            raise
    if aside is None:
        _drop(side, parked)


def _rename(connection: Connection, name: str, to: str, side: DatabaseSettings) -> None:
    statement = sql.SQL("alter database {} rename to {}").format(sql.Identifier(name), sql.Identifier(to))
    deadline = time.monotonic() + _RENAME_S
    while True:
        connection.execute(_END_SESSIONS, [name])
        try:
            connection.execute(statement)
        except errors.ObjectInUse as error:
            if time.monotonic() > deadline:
                raise BusyError(
                    f"New sessions keep connecting to the {side}, so it can't be renamed; end them, then run this "
                    "again. Nothing was changed."
                ) from error
            time.sleep(0.1)
        else:
            return


def _drop(side: DatabaseSettings, name: str) -> None:
    with connections.connect(side, database=_MAINTENANCE) as connection, _explained(side, f"{name} can't be dropped"):
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextmanager
def _explained(side: DatabaseSettings, what: str) -> Iterator[None]:
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise UsageError(
            f"{what}: role {side.user!r} may not do this: {error.diag.message_primary}. Set {settings.variables(side)} "
            "to a superuser, or to a role with CREATEDB that is a member of all owners."
        ) from error
    except psycopg.Error as error:
        raise contents.ended(error, what) from error
