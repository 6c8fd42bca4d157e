"""Errors that a user can meet. Each class has a code that never changes, and a remedy.

An error's message says what was wrong in this case: the value, and what to do. Its class says what kind of error it is:
logs, reports, alerts, metrics and the runbook use `code`, never the message. docs/reference/errors.md is made from
here: a class's docstring is the cause, and `cure` the remedy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class CodedError(Exception):
    """An unexpected error.

    Attributes:
        code: the name of the kind of error, in snake case. It never changes.
        transient: the same run may succeed later, although nobody changes anything.
        cure: what to do, in every case.
        section: the heading of docs/runbook.md that helps further.
        status: the exit status of a program that ends with this error.
        ends_run: the error ends the whole run, not just one stream.
    """

    code: ClassVar[str] = "unexpected"
    transient: ClassVar[bool] = True
    cure: ClassVar[str] = "Run it again with --debug and report what that prints."
    section: ClassVar[str] = "other"
    status: int = 1
    ends_run: bool = False

    def fields(self) -> dict[str, Any]:
        """Return the fields of its log line, besides the message."""
        return {"code": self.code, "transient": self.transient, "hint": self.cure}


class SingerPostgresError(CodedError):
    """A stream can't be read or loaded; other streams can."""

    cure = "The message says what to do."
    section = "load"


class RunError(SingerPostgresError):
    """The whole run ended, whichever stream had the error."""

    ends_run = True


def catalogue() -> Iterator[type[CodedError]]:
    """Yield each imported class that has a code of its own."""
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


# other runs and sessions


class BusyError(RunError):
    """Another run loads the same table, builds the same models, or holds the project."""

    code = "run_busy"
    cure = "Wait for the other run to end; the message names its process."
    section = "busy"
    status = os.EX_TEMPFAIL


class LockLostError(RunError):
    """The connection that kept other runs out broke, and another run may have begun."""

    code = "lock_lost"
    cure = "Run it again. If there is a pooler, connect to the server itself."
    section = "busy"


class LockBusyError(SingerPostgresError):
    """Other sessions kept a table locked for longer than `lock_timeout`."""

    code = "lock_busy"
    cure = (
        "Wait for the sessions that the message names, or end them with pg_terminate_backend. End a prepared "
        "transaction with COMMIT PREPARED or ROLLBACK PREPARED."
    )


class TransactionOpenError(RunError):
    """A connection broke during a commit, and its transaction is still open in the warehouse."""

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
    """A process of the run ended without a message: it was killed, or it crashed."""

    code = "process_gone"
    cure = "Run it again; it resumes where it stopped. The kernel's log says whether memory ran out."
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
    """Meltano's state has a form that this release does not write."""

    code = "state_invalid"
    transient = False
    cure = "Correct the state, or read the stream again: `tidemark state rewind STREAM --to beginning`."
    section = "state"


class StateAheadError(SingerPostgresError):
    """The state says that a stream was loaded further than the warehouse holds, so rows would be missed."""

    code = "state_ahead"
    transient = False
    cure = "`tidemark state check` compares both; `tidemark state rewind` sets it back to what the warehouse holds."
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
    """A selected table is not in the source: it was dropped, renamed, or never existed."""

    code = "table_missing"
    transient = False
    cure = "Correct `select` in extract/, or create the table again."
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
    """A column was dropped, and another column with other values has its name now."""

    code = "column_recreated"
    transient = False
    cure = "Run the SQL of the message in the warehouse; it keeps the old values apart."
    section = "shape"


class KeyMissingError(SingerPostgresError):
    """A stream has no primary key, so rows that are read again can't be told from new ones."""

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
    """Values of the replication key don't show which rows changed last."""

    code = "replication_key_unusable"
    transient = False
    cure = "Choose a timestamp that each change sets, or read the stream whole (FULL_TABLE)."
    section = "shape"


class NameTakenError(SingerPostgresError):
    """A table or column has the name of one of the warehouse's own, or of another stream's."""

    code = "name_taken"
    transient = False
    cure = "Deselect it, or rename it in a view and select the view."
    section = "shape"


class TypeUnsupportedError(SingerPostgresError):
    """A column has a type, or a value, that can't be transferred."""

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
    """Somebody altered a table of the warehouse by hand, and rows could not be loaded unchanged."""

    code = "warehouse_altered"
    transient = False
    cure = "Run the SQL of the message in the warehouse."
    section = "shape"


class DependentObjectError(SingerPostgresError):
    """A view, function, policy or another object blocks a column's new type."""

    code = "dependent_object"
    transient = False
    cure = "Drop what the message names, run this again, and create it again."
    section = "shape"


class NotLoadedYetError(SingerPostgresError):
    """A backfill needs a completely loaded stream, and this one is not."""

    code = "not_loaded_yet"
    transient = False
    cure = "Run the pipeline without the backfill first."
    section = "usage"


# between tap and target


class ChunkLostError(SingerPostgresError):
    """A chunk file was damaged, removed, or is on another machine."""

    code = "chunk_lost"
    cure = (
        "Let tap and target share a directory (chunk_dir) on a healthy disk, and let nothing else delete files there."
    )


class ChunkDirectoryError(SingerPostgresError):
    """The directory of chunk files can't be written."""

    code = "chunk_directory_unusable"
    cure = "Free some space in chunk_dir, or set it to another directory."


class MessageInvalidError(RunError):
    """The target's input has a line that is not a Singer message, or comes in the wrong order."""

    code = "message_invalid"
    cure = "Read the tap's own error: it ended early, or something else writes to its output."


class RecordInvalidError(SingerPostgresError):
    """A record lacks its key or does not fit its stream's schema, and `max_rejects` records are put aside already."""

    code = "record_invalid"
    transient = False
    cure = "Correct the records in the source; raw._tidemark_rejects has those that are put aside."


# errors of PostgreSQL; core/driver_errors.py chooses the class


class DatabaseError(SingerPostgresError):
    """A database refused a statement for a reason without a code of its own."""

    code = "statement_failed"
    cure = "The message has the server's own words."


class SourceUnreachableError(SingerPostgresError):
    """The source does not answer."""

    code = "source_unreachable"
    cure = "Check that the server runs, and check host, port and firewall; the next run reads what this one did not."
    section = "unreachable"


class WarehouseUnreachableError(SingerPostgresError):
    """The warehouse does not answer."""

    code = "warehouse_unreachable"
    cure = "Check that the server runs, and check host, port and firewall; the next run loads what this one did not."
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
    """The server, the database or the role has reached its limit of connections."""

    code = "too_many_connections"
    cure = "Wait, lower max_parallel, or raise max_connections."
    section = "unreachable"


class ReadOnlyError(SingerPostgresError):
    """The warehouse takes no writes: it is a standby, or set read-only."""

    code = "server_read_only"
    cure = "Connect to the primary, or unset default_transaction_read_only."
    section = "unreachable"


class DiskFullError(SingerPostgresError):
    """A server, or the directory of chunk files, has no space left."""

    code = "disk_full"
    cure = "Free some space; the next run resumes where this one stopped."


class OutOfMemoryError(SingerPostgresError):
    """A server has no memory left."""

    code = "out_of_memory"
    cure = "Lower max_parallel or work_mem, or give the server more memory."


class DeadlockError(SingerPostgresError):
    """Sessions waited for each other, and the server ended one, again and again."""

    code = "deadlock"
    cure = "Run it again; if the error comes back, find out who else writes to the table."


class StatementTimeoutError(SingerPostgresError):
    """A statement was cancelled, by `statement_timeout` or by a person."""

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
    cure = "Create it again, or correct the view, function or `where` condition that names it."


class ValueInvalidError(SingerPostgresError):
    """A value can't be read, computed or stored, such as a division by zero in a view."""

    code = "value_invalid"
    transient = False
    cure = "Correct the value in the source, or deselect its column."


class EncodingError(SingerPostgresError):
    """A text is not valid in its database's encoding, or can't be converted to UTF-8."""

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
    """No run of a stream succeeded within the time that its freshness allows."""

    code = "source_stale"
    transient = False
    cure = "`tidemark status` says when each stream's last run was and how it ended."
    section = "freshness"


# the source's log


class SlotMissingError(RunError):
    """The replication slot or the publication of LOG_BASED streams does not exist, or can't be used."""

    code = "slot_missing"
    cure = "`tidemark slots create` makes it; if it was lost, `tidemark slots repair` brings its streams back."
    section = "slots"


class SlotGoneError(SlotMissingError):
    """The replication slot was dropped or lost: changes of the log since then are missed."""


class SlotAheadError(RunError):
    """The replication slot is ahead of the warehouse: changes between them would be missed."""

    code = "slot_ahead"
    transient = False
    cure = "`tidemark slots repair` compares its streams with the source, and goes on from there."
    section = "slots"


class SlotWalError(RunError):
    """The source keeps more WAL for the replication slot than `max_slot_wal_mb` allows, also at the end of a run."""

    code = "slot_wal_exceeded"
    cure = "Run it more often, end old transactions of the source, or raise max_slot_wal_mb; the message has figures."
    section = "slots"


class ReplicationError(RunError):
    """The source ended or refused the session that streams its log."""

    code = "replication_failed"
    cure = "The message has the server's words; if nothing there has to change, run this again."
    section = "slots"


class LogUnfitError(SingerPostgresError):
    """A table can't be read from the log as it is."""

    code = "log_unfit"
    transient = False
    cure = "The message says what to change."
    section = "slots"
