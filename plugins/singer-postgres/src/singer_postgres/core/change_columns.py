"""The columns that a row of changes has before the stream's own, in files and stages of LOG_BASED streams."""

from __future__ import annotations

# the values of OPERATION
UPSERT, DELETE, TRUNCATE = 1, 2, 3

OPERATION, COMMIT_LSN, NUMBER = "_tidemark_operation", "_tidemark_commit_lsn", "_tidemark_number"
COMMITTED_AT = "_tidemark_committed_at"
UNCHANGED = "_tidemark_unchanged"
CHANGE_COLUMNS = {
    OPERATION: "smallint",
    # where the transaction's commit record is
    COMMIT_LSN: "bigint",
    # when it was written, in microseconds since 2000-01-01 UTC
    COMMITTED_AT: "bigint",
    # the order of the changes of a session
    NUMBER: "bigint",
    # the numbers of the stream's columns whose TOASTed value did not change, and so was not sent
    UNCHANGED: "smallint[]",
}


def old_key(key: int) -> str:
    """Return the name of the column with the old value of a key column, by the latter's place in the key."""
    return f"_tidemark_old_{key}"
