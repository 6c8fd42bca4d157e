"""The errors that a user can meet: each class has a code that stays, and says what helps.

The message of an error says what was wrong in this one case: the value, and what to do. Its class says what kind it is:
logs, reports, alerts, metrics and the runbook go by `code` and never by the message. A class's docstring is the cause
and `cure` the remedy in docs/reference/errors.md, which is made from here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class CodedError(Exception):
    """Nobody foresaw this error.

    Attributes:
        code: names the kind of error, in snake case. It never changes.
        transient: the same run may succeed later without anybody's help.
        cure: what to do, whatever the case.
        section: the heading of docs/runbook.md that helps further.
        status: the exit status of a program that ends so.
        ends_run: the whole run ends, and not a stream alone.
    """

    code: ClassVar[str] = "unexpected"
    transient: ClassVar[bool] = True
    cure: ClassVar[str] = "Run it again with --debug and report what that prints."
    section: ClassVar[str] = "other"
    status: int = 1
    ends_run: bool = False

    def fields(self) -> dict[str, Any]:
        """Return what a log line says of it besides the message."""
        return {"code": self.code, "transient": self.transient, "hint": self.cure}


class SingerPostgresError(CodedError):
    """A stream can't be read or loaded; other streams can."""

    code = "stream_failed"
    cure = "The message says what to do."
    section = "load"


class RunError(SingerPostgresError):
    """The whole run ends, whichever stream met the error."""

    code = "run_failed"
    ends_run = True


def catalogue() -> Iterator[type[CodedError]]:
    """Yield each class with a code of its own, of those that are imported."""
    waiting: list[type[CodedError]] = [CodedError]
    seen: set[str] = set()
    while waiting:
        kind = waiting.pop(0)
        waiting += kind.__subclasses__()
        if kind.code not in seen:
            seen.add(kind.code)
            yield kind


def one_line(error: object) -> str:
    """Return an error's message on one line, or the name of its class if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


# who else is at work


class BusyError(RunError):
    """Another run loads the same table, builds the same models, or holds the project."""

    code = "run_busy"
    cure = "Wait for the other run to end; the message names its process."
    section = "busy"
    status = os.EX_TEMPFAIL


class LockLostError(RunError):
    """The connection that kept other runs out broke, and another run may have begun."""

    code = "lock_lost"
    cure = "Run it again. Behind a pooler, connect past it."
    section = "busy"


class LockBusyError(SingerPostgresError):
    """Other sessions kept a table locked for longer than `lock_timeout`."""

    code = "lock_busy"
    cure = "Wait for the sessions that the message names, or end them with pg_terminate_backend."


class TransactionOpenError(RunError):
    """A transaction of a connection that broke is still open in the warehouse, and nobody knows how it will end."""

    code = "transaction_open"
    cure = "End its session with pg_terminate_backend, then run this again."


class TableChangedError(SingerPostgresError):
    """A table was altered again and again while it was read."""

    code = "table_changed"
    cure = "Run it again when nobody alters the table."


class StreamsFailedError(SingerPostgresError):
    """Several streams failed, for different reasons; the others are complete."""

    code = "streams_failed"
    cure = "The lines before it name each stream with its own code."

    def __init__(self, message: str, each: Sequence[dict[str, Any]]) -> None:
        """Take the message, and the fields of each stream's error."""
        super().__init__(message)
        self._each = each

    def fields(self) -> dict[str, Any]:
        """Return the fields of the streams' errors where they agree."""
        if len({fields["code"] for fields in self._each}) == 1:
            return self._each[0]
        return {**super().fields(), "transient": all(fields["transient"] for fields in self._each)}


class ProcessGoneError(RunError):
    """A process of the run ended without a word: it was killed, or crashed."""

    code = "process_gone"
    cure = "Run it again; it goes on where it was. The kernel's log says whether memory ran out."
    section = "killed"


# settings


class SettingInvalidError(SingerPostgresError):
    """A setting has a value that can't be used, or names something that does not exist."""

    code = "setting_invalid"
    transient = False
    cure = "Correct the setting that the message names, in the YAML, in .env or in the environment."
    section = "usage"


class PoolerError(RunError):
    """A pooler between here and the server lends its sessions by transaction or by statement."""

    code = "pooler_without_session"
    transient = False
    cure = "Connect to the server itself, or to a pool with pool_mode = session."
    section = "usage"


class ReleaseMismatchError(SingerPostgresError):
    """Tap, target and the warehouse's own tables come from different releases."""

    code = "release_mismatch"
    transient = False
    cure = "Install one release everywhere that loads into this warehouse."
    section = "usage"


# state


class StateInvalidError(SingerPostgresError):
    """The state that Meltano keeps is not what this release writes."""

    code = "state_invalid"
    transient = False
    cure = "Correct the state, or read the stream again: `tidemark state rewind STREAM --to beginning`."
    section = "state"


class StateAheadError(SingerPostgresError):
    """The state says that a stream was loaded further than the warehouse holds, so rows would be missed."""

    code = "state_ahead"
    transient = False
    cure = "`tidemark state check` compares both; `tidemark state rewind` goes back to what the warehouse holds."
    section = "state"


class OtherSourceError(SingerPostgresError):
    """The table holds rows of another database, or of another stream, and the two would mix."""

    code = "other_source"
    transient = False
    cure = "Load this source into a schema or warehouse of its own."
    section = "state"


class ClockBackError(SingerPostgresError):
    """The source's clock is behind what was loaded: a backup was restored, or the clock went back."""

    code = "source_clock_back"
    transient = False
    cure = "Make sure that it is the right database; then follow the message."
    section = "state"


# the source's tables


class TableMissingError(SingerPostgresError):
    """A selected table is not in the source: it was dropped, renamed, or never there."""

    code = "table_missing"
    transient = False
    cure = "Correct `select` in extract/, or make the table again."
    section = "shape"


class ColumnMissingError(SingerPostgresError):
    """A selected column, or the replication key, is not in the source's table."""

    code = "column_missing"
    transient = False
    cure = "Correct `select` or the replication key, or add the column."
    section = "shape"


class ColumnRetypedError(SingerPostgresError):
    """A column has another type in the source than in the warehouse, and values would be altered or refused."""

    code = "column_retyped"
    transient = False
    cure = "Run the SQL of the message in the warehouse; it keeps the old values apart."
    section = "shape"


class ColumnRecreatedError(SingerPostgresError):
    """A column was dropped, and another one has its name: its values are not those of before."""

    code = "column_recreated"
    transient = False
    cure = "Run the SQL of the message in the warehouse; it keeps the old values apart."
    section = "shape"


class KeyMissingError(SingerPostgresError):
    """A stream has no primary key, so rows that are read again could not be told from new ones."""

    code = "key_missing"
    transient = False
    cure = "Give the table a primary key with the statement of the message, or read it whole (FULL_TABLE)."
    section = "shape"


class KeyChangedError(SingerPostgresError):
    """The warehouse's table has no unique index on the stream's key."""

    code = "key_changed"
    transient = False
    cure = "Run the SQL of the message in the warehouse."
    section = "shape"


class ReplicationKeyError(SingerPostgresError):
    """Values of the replication key say nothing of what was changed last."""

    code = "replication_key_unusable"
    transient = False
    cure = "Take a time stamp that each change sets, or read the stream whole (FULL_TABLE)."
    section = "shape"


class NameTakenError(SingerPostgresError):
    """A table or column has a name that the warehouse's own ones have, or that another stream has."""

    code = "name_taken"
    transient = False
    cure = "Deselect it, or rename it in a view and select the view."
    section = "shape"


class TypeUnsupportedError(SingerPostgresError):
    """A column has a type, or a value, that can't be carried."""

    code = "type_unsupported"
    transient = False
    cure = "Deselect the column, or mask it."
    section = "shape"


class LimitExceededError(SingerPostgresError):
    """A table has more columns, or wider rows, than a table of the warehouse can have."""

    code = "limit_exceeded"
    transient = False
    cure = "Deselect columns."
    section = "shape"


class SnapshotExpiredError(SingerPostgresError):
    """A stream that is read under one snapshot took longer than `snapshot_seconds`."""

    code = "snapshot_expired"
    transient = False
    cure = "Raise snapshot_seconds, or give the stream a replication key."


class RowsHiddenError(SingerPostgresError):
    """Row-level security hides rows from the role that reads or loads them."""

    code = "rows_hidden"
    transient = False
    cure = "Run the statement of the message."


# the warehouse's tables


class WarehouseAlteredError(SingerPostgresError):
    """Somebody altered a table of the warehouse by hand, and rows could not be loaded as they are."""

    code = "warehouse_altered"
    transient = False
    cure = "Run the SQL of the message in the warehouse."
    section = "shape"


class DependentObjectError(SingerPostgresError):
    """A view, function, policy or the like keeps a column from a new type."""

    code = "dependent_object"
    transient = False
    cure = "Drop what the message names, run again, and make it again."
    section = "shape"


class NotLoadedYetError(SingerPostgresError):
    """A backfill is asked of a stream that was never loaded to its end."""

    code = "not_loaded_yet"
    transient = False
    cure = "Run the pipeline without the backfill first."
    section = "usage"


# between tap and target


class ChunkLostError(SingerPostgresError):
    """A chunk file was damaged, removed, or is on another machine."""

    code = "chunk_lost"
    cure = "Let tap and target share a directory (chunk_dir) on a sound disk, which nobody else cleans."


class ChunkDirectoryError(SingerPostgresError):
    """The directory of chunk files can't be written."""

    code = "chunk_directory_unusable"
    cure = "Make room in chunk_dir, or name another directory there."


class MessageInvalidError(RunError):
    """The target's input is not Singer messages, or not in their order."""

    code = "message_invalid"
    cure = "Look at the tap's own error: it ended early, or something else writes to its output."


class RecordInvalidError(SingerPostgresError):
    """More records than `max_rejects` can't be stored."""

    code = "record_invalid"
    transient = False
    cure = "Look at raw._tidemark_rejects; correct the records in the source."


# what PostgreSQL says; core/driver_errors.py decides which it is


class DatabaseError(SingerPostgresError):
    """A database refused a statement for a reason that has no code here."""

    code = "statement_failed"
    cure = "The message has the server's own words."


class SourceUnreachableError(SingerPostgresError):
    """The source does not answer."""

    code = "source_unreachable"
    cure = "Look whether the server runs, and at host, port and firewall; the next run reads what this one did not."
    section = "unreachable"


class WarehouseUnreachableError(SingerPostgresError):
    """The warehouse does not answer."""

    code = "warehouse_unreachable"
    cure = "Look whether the server runs, and at host, port and firewall; the next run loads what this one did not."
    section = "unreachable"


class TunnelError(RunError):
    """The SSH tunnel can't be opened."""

    code = "tunnel_failed"
    cure = "Check host, port, username and private_key of ssh_tunnel."
    section = "unreachable"


class LoginRefusedError(SingerPostgresError):
    """The server does not let this user in, or does not have this database."""

    code = "login_refused"
    transient = False
    cure = "Check user, password and database in .env, and the server's pg_hba.conf."
    section = "unreachable"


class TooManyConnectionsError(SingerPostgresError):
    """The server, the database or the role has as many connections as it may have."""

    code = "too_many_connections"
    cure = "Wait, lower max_parallel, or raise max_connections."
    section = "unreachable"


class ReadOnlyError(SingerPostgresError):
    """The warehouse takes no writes: it is a standby, or set read-only."""

    code = "server_read_only"
    cure = "Connect to the primary, or unset default_transaction_read_only."
    section = "unreachable"


class DiskFullError(SingerPostgresError):
    """A server, or the directory of chunk files, has no room left."""

    code = "disk_full"
    cure = "Make room; the next run goes on where this one stopped."


class OutOfMemoryError(SingerPostgresError):
    """A server has no memory left."""

    code = "out_of_memory"
    cure = "Lower max_parallel or work_mem, or give the server more memory."


class DeadlockError(SingerPostgresError):
    """Sessions waited for each other, and the server ended one, again and again."""

    code = "deadlock"
    cure = "Run it again; if it comes back, look who else writes to the table."


class StatementTimeoutError(SingerPostgresError):
    """A statement was cancelled: by `statement_timeout`, or by somebody."""

    code = "statement_cancelled"
    cure = "Raise statement_timeout of the tap, the target or the role."


class PermissionDeniedError(SingerPostgresError):
    """The role has no right to read or write something."""

    code = "permission_denied"
    transient = False
    cure = "`tidemark roles source` and `tidemark roles warehouse` print the SQL of all rights."


class ObjectUndefinedError(SingerPostgresError):
    """A statement names a table, function or type that does not exist."""

    code = "object_undefined"
    transient = False
    cure = "Make it again, or correct what names it: a view, a function, a `where` condition."


class ValueInvalidError(SingerPostgresError):
    """A value can't be read, computed or stored, such as a division by zero in a view."""

    code = "value_invalid"
    transient = False
    cure = "Correct the value in the source, or deselect its column."


class EncodingError(SingerPostgresError):
    """A text is not valid in its database's encoding, or has no form in UTF-8."""

    code = "encoding_invalid"
    transient = False
    cure = "Correct the value in the source, or deselect its column."


class NotNullError(SingerPostgresError):
    """A column of the warehouse is NOT NULL, and the source has a null."""

    code = "not_null_violation"
    transient = False
    cure = "Run the SQL of the message in the warehouse."


class ConstraintError(SingerPostgresError):
    """A unique, check, foreign-key or exclusion constraint of the warehouse refuses a row."""

    code = "constraint_violation"
    transient = False
    cure = "Drop the constraint in the warehouse, or correct the row in the source."


# dbt


class ModelsFailedError(RunError):
    """dbt could not build a model; models below it keep the rows of the last good run."""

    code = "models_failed"
    cure = "The line names the model; logs/dbt.log has its statement."
    section = "models"


class ProjectInvalidError(RunError):
    """dbt can't parse or compile the project."""

    code = "dbt_project_invalid"
    transient = False
    cure = "Correct the file that the message names: `git log -3 -- transform` shows the last edits."
    section = "models"


class TestsFailedError(RunError):
    """Models are built, and a test of their rows failed."""

    code = "tests_failed"
    transient = False
    cure = "The failing rows are in the schema test_failures."
    section = "tests"


class SourceStaleError(RunError):
    """No run of a stream went well for longer than its freshness allows."""

    code = "source_stale"
    transient = False
    cure = "`tidemark status` says when each stream's last run was and how it ended."
    section = "freshness"
