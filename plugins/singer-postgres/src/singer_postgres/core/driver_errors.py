"""Sorts driver errors: transient, or fatal for one stream, or fatal for the run.

After a server restart, a broken connection or a deadlock, a retry may succeed. A wrong password or a missing table
stays wrong, so it is reported at once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import backoff

from singer_postgres.core import errors
from singer_postgres.core.errors import one_line
from singer_postgres.core.sql_compat import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
Side = Literal["source", "warehouse"]
# classes and codes of https://www.postgresql.org/docs/current/errcodes-appendix.html
_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"
# the server ended a session, or refused to begin one
_CLASSES = ("08",)
_CODES = frozenset(
    {
        _SERIALIZATION_FAILURE,  # a standby ends sessions with it, too
        "53300",  # too_many_connections
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
    }
)
_AWAY_CODES = frozenset({"57P01", "57P02", "57P03"})
# by code, else by its first two characters, which name its class
_KINDS: dict[str, type[errors.CodedError]] = {
    "22": errors.ValueInvalidError,
    "22021": errors.EncodingError,
    "22P05": errors.EncodingError,
    "23": errors.ConstraintError,
    "23502": errors.NotNullError,
    "25006": errors.ReadOnlyError,
    "28": errors.LoginRefusedError,
    "3D000": errors.LoginRefusedError,
    "3F000": errors.ObjectUndefinedError,
    "40001": errors.DeadlockError,
    "40P01": errors.DeadlockError,
    "42501": errors.PermissionDeniedError,
    "42701": errors.NameTakenError,
    "42703": errors.ObjectUndefinedError,
    "42704": errors.ObjectUndefinedError,
    "42883": errors.ObjectUndefinedError,
    "42P01": errors.ObjectUndefinedError,
    "53100": errors.DiskFullError,
    "53200": errors.OutOfMemoryError,
    "53300": errors.TooManyConnectionsError,
    "54": errors.LimitExceededError,
    "55P03": errors.LockBusyError,
    "57014": errors.StatementTimeoutError,
}
# the SDK's errors about its input, by their names, because this package does without the SDK
_KINDS_OF_SDK: dict[str, type[errors.CodedError]] = {
    "InvalidRecord": errors.RecordInvalidError,
    "MissingKeyPropertiesError": errors.RecordInvalidError,
    "RecordsWithoutSchemaException": errors.MessageInvalidError,
}
# The server ended only the statement, and the session goes on. Any other code can come from a foreign data wrapper or a
# function, even a lost connection's: such a code says nothing about our session.
_CODES_OF_STATEMENTS = frozenset({_SERIALIZATION_FAILURE, _DEADLOCK})
# every stream that writes to the same server meets these errors
_OF_SERVERS_WRITTEN_TO = frozenset(
    {
        "25006",  # read_only_sql_transaction
        "53100",  # disk_full
        "53200",  # out_of_memory
        "53300",  # too_many_connections
    }
)
# undefined_table, undefined_function, undefined_object, invalid_schema_name
_UNDEFINED = frozenset({"42P01", "42883", "42704", "3F000"})
# character_not_in_repertoire, untranslatable_character
_NO_TEXT = frozenset({"22021", "22P05"})
# insufficient_privilege
_DENIED = "42501"
_DENIED_OBJECT = re.compile(r"permission denied for (schema|function|view|table) ([^\n]+)")
# Without a code, because the connection failed or broke: words in the messages of libpq and the server.
_CROWDED = ("too many clients", "too many connections", "connection slots", "no more connections allowed")
_BUSY = (*_CROWDED, "starting up", "shutting down", "recovery mode", "not yet accepting")
# the server didn't answer
_AWAY = ("connection refused", "connection timed out", "timeout expired", "no route to host", "network is unreachable")
# the server answered, and the connection broke
_BROKEN = (
    *("connection reset", "broken pipe"),
    *("server closed the connection", "terminating connection", "connection already closed", "connection is closed"),
    *("connection is lost", "could not receive data", "could not send data", "no connection to the server"),
    *("ssl connection has been closed", "ssl syscall error", "eof detected", "consuming input failed"),
    # psycopg2's message if a connection breaks during a COPY
    "no message from the libpq",
)
# libpq's messages if the server refuses a login; a failed connection has no code
_REFUSED = (
    *("authentication failed", "no password supplied", "no pg_hba.conf entry"),
    *("does not exist", "is not permitted to log in"),
)
TRIES = 8
# The waits are random, up to 0.5, 1, 2, 4, 8 s and twice 10 s. A restarting server is back by then.
_FIRST_S, _LONGEST_S = 0.5, 10


def is_transient(error: BaseException, *, reached: bool = True) -> bool:
    """Return whether a retry may succeed.

    Args:
        error: an error of either driver.
        reached: the server answered before. If it never did, a refused connection means a wrong address.
    """
    if not _is_of_driver(error):
        return False
    if keeps_session(error):
        return _code(error) in _CODES_OF_STATEMENTS
    if code := _code(error):
        return code.startswith(_CLASSES) or code in _CODES
    text = str(error).lower()
    return any(word in text for word in (*_BUSY, *_BROKEN, *(_AWAY if reached else ())))


def is_out_of_connections(error: BaseException) -> bool:
    """Return whether the server refused a connection because its, the database's or the role's limit is reached."""
    if not _is_of_driver(error) or keeps_session(error):
        return False
    return _code(error) == "53300" or any(word in str(error).lower() for word in _CROWDED)


def ends_one_stream(error: BaseException, *, writing: bool = False) -> bool:
    """Return whether other streams can go on: an error of a statement ends only its stream.

    Args:
        error: an error of either driver, or one of ours.
        writing: the statement writes, so a full disk or memory concerns all streams.
    """
    if isinstance(error, errors.CodedError):
        return not error.ends_run
    if not _is_of_driver(error):
        return False
    if writing and _code(error) in _OF_SERVERS_WRITTEN_TO:
        return False
    return keeps_session(error) or _is_of_client(error)


def keeps_session(error: BaseException) -> bool:
    """Return whether the server ended only a statement, and the session goes on."""
    severity = getattr(getattr(error, "diag", None), "severity_nonlocalized", None)
    return severity is not None and severity not in {"FATAL", "PANIC"}


def _is_of_client(error: BaseException) -> bool:
    """Return whether the driver refused a value before it sent it to the server."""
    return any(kind.__name__ == "DataError" for kind in type(error).__mro__)


def wrap_driver_error(  # noqa: PLR0913 - each argument has a name
    error: Exception, doing: str, more: str = "", *, side: Side, of_stream: bool, role: str | None = None
) -> Exception:
    """Wrap a driver's error in one of ours that says what was being done. Return other errors unchanged.

    Args:
        more: further information for the message.
        side: the side whose server raised it.
        of_stream: the error ends only one stream.
        role: the role that may lack a right; None if it is not known.
    """
    if not _is_of_driver(error):
        return error
    # where in our statement it was is no help to somebody who lacks a right
    what = one_line(str(error).partition("\nLINE ")[0] if _code(error) == _DENIED else error).rstrip(".")
    ours = kind_of(error, side=side)(f"{doing} failed: {what}{more or _advice(error, role)}.")
    ours.ends_run = not of_stream
    ours.__cause__ = error
    return ours


def kind_of(error: BaseException, *, side: Side) -> type[errors.CodedError]:
    """Return the class of ours for an error."""
    if isinstance(error, errors.CodedError):
        return type(error)
    if not _is_of_driver(error):
        if kind := _KINDS_OF_SDK.get(type(error).__name__):
            return kind
        # the SDK wraps what a sink raises
        return kind_of(error.__cause__, side=side) if error.__cause__ else errors.CodedError
    away = errors.SourceUnreachableError if side == "source" else errors.WarehouseUnreachableError
    if code := _code(error):
        # a function or a foreign data wrapper can raise these too, on a server that answers
        is_away = (code in _AWAY_CODES or code.startswith(_CLASSES)) and not keeps_session(error)
        return away if is_away else _KINDS.get(code) or _KINDS.get(code[:2]) or errors.DatabaseError
    return _kind_without_code(error) or away


def _kind_without_code(error: BaseException) -> type[errors.CodedError] | None:
    """Return the class for an error without a code; None if the server was just out of reach."""
    if is_out_of_connections(error):
        return errors.TooManyConnectionsError
    if any(word in str(error).lower() for word in _REFUSED):
        return errors.LoginRefusedError
    if _is_of_client(error):
        return errors.ValueInvalidError
    return None if type(error).__name__ in {"OperationalError", "InterfaceError"} else errors.DatabaseError


def log_fields(error: BaseException, *, side: Side, stream: str | None = None) -> dict[str, Any]:
    """Return the fields of an error's log line, besides the message.

    Args:
        side: the side whose server raised it, if it is a driver's error.
        stream: the stream, if the error ends only this stream.
    """
    fields = error.fields() if isinstance(error, errors.CodedError) else kind_of(error, side=side)().fields()
    return {"error": {**fields, "stream": stream} if stream else fields}


def _advice(error: Exception, role: str | None) -> str:
    """Return what to do about an error, if the server's message doesn't say it."""
    code = _code(error)
    if code in _UNDEFINED and getattr(getattr(error, "diag", None), "internal_query", None):
        return (
            "; a function uses that name without its schema, and runs with an empty search_path, so that names mean "
            "the same in every session: give the function its own, as in ALTER FUNCTION … SET search_path = public"
        )
    if code in _NO_TEXT:
        return (
            "; a value is not valid text in the encoding of its database, or can't be converted to UTF-8: correct it "
            "in the source, or deselect its column"
        )
    if code == _DENIED:
        return missing_grant(str(error), role)
    return ""


def missing_grant(message: str, role: str | None) -> str:
    """Return how to give a right, for the end of a message of the server that says which one is missing.

    Args:
        role: the role that lacks it; None if it is not known.
    """
    found = _DENIED_OBJECT.search(message)
    if found is None:
        return ""
    kind, name = found[1], found[2].strip().rstrip(".")
    to = quoted(role) if role else "its role"
    if kind == "schema":
        return f": as the schema's owner, GRANT USAGE ON SCHEMA {quoted(name)} TO {to}"
    right = "EXECUTE ON FUNCTION" if kind == "function" else "SELECT ON"
    schema = "pg_catalog." if name.startswith("pg_") else ""
    return f": as a superuser of that database, GRANT {right} {schema}{name} TO {to}"


def _is_of_driver(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in {"psycopg", "psycopg2"}


def _code(error: BaseException) -> str:
    """Return the SQLSTATE, or an empty text for an error without one. The drivers have different names for it."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""


def longest_wait_s(tries: int) -> float:
    """Return the longest wait before the next try, after `tries` tries."""
    return float(min(_LONGEST_S, _FIRST_S * 2**tries))


def retry(
    attempt: Callable[[], _T], *, is_transient: Callable[[Any], bool], on_retry: Callable[[BaseException, float], None]
) -> _T:
    """Call `attempt` and return its result. Retry transient errors with growing, random waits.

    Args:
        is_transient: whether an error is transient.
        on_retry: called before each wait with the error and the wait in seconds.

    Raises:
        Exception: the last error, after too many tries, or one that is not transient.
    """
    return backoff.on_exception(
        backoff.expo,
        Exception,
        max_tries=TRIES,
        giveup=lambda error: not is_transient(error),
        on_backoff=lambda details: on_retry(details["exception"], details["wait"]),
        logger=None,
        factor=_FIRST_S,
        max_value=_LONGEST_S,
    )(attempt)()
