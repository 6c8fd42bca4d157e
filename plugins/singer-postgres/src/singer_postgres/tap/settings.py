"""The settings that this tap adds to the MeltanoLabs tap's."""

from __future__ import annotations

from singer_sdk import typing as th

_OF_STREAMS = "by stream, such as `public-orders`"
# a year; what PostgreSQL takes, which counts milliseconds in 31 bits; a file that still fits a small disk
_MOST_SECONDS, _MOST_TIMEOUT_SECONDS, _MOST_MB = 366 * 86_400, 2_147_483, 1_048_576
_KEY_VALUE = th.CustomType({"type": ["string", "number", "null"]})

# of the MeltanoLabs tap and the SDK, by setting and value; None is any
WITHOUT_EFFECT: dict[tuple[str, str | None], str] = {
    ("batch_config", None): "set use_copy for files of COPY data, or leave it out for records",
    **{
        ("default_replication_method", method): "set it in `metadata`, with "
        f'{{"*": {{"replication-method": "{method}", "replication-key": …}}}}'
        for method in ("INCREMENTAL", "LOG_BASED")
    },
    ("use_singer_decimal", None): "leave it out, as numbers are sent with all their digits",
}

SETTINGS = th.PropertiesList(
    th.Property(
        "use_copy",
        th.BooleanType,
        default=False,
        title="Use COPY",
        description="Send BATCH messages of `pgcopy` files instead of RECORD messages. The target must know the "
        "format, as the target-postgres of this package does, and share a disk with the tap. Streams with stream "
        "maps, flattening or a record limit are sent as RECORD messages all the same.",
    ),
    th.Property(
        "chunk_dir",
        th.StringType,
        title="Chunk directory",
        description="Directory of the chunk files, on a disk with room for `chunks_outstanding` of them. "
        "Default: `tidemark-chunks-<uid>` in the system's temporary directory.",
    ),
    th.Property(
        "chunk_size_mb",
        th.NumberType(exclusive_minimum=0, maximum=_MOST_MB),
        default=64,
        title="Chunk size",
        description="Size at which a chunk file is cut, in MiB. It is also what a chunk's transaction is about.",
    ),
    th.Property(
        "chunks_outstanding",
        th.IntegerType(minimum=1),
        default=4,
        title="Chunks outstanding",
        description="How many chunk files may exist at once. When that many wait for the target, the tap waits too.",
    ),
    th.Property(
        "max_parallel",
        th.IntegerType(minimum=1),
        default=2,
        title="Parallel reads",
        description="How many streams, or ranges of one table, are read at once, each on a connection of its own. "
        "One more connection holds the snapshot, and another looks for sessions that wait for a table.",
    ),
    th.Property(
        "snapshot_seconds",
        th.NumberType(minimum=0, maximum=_MOST_SECONDS),
        default=300,
        title="Snapshot age",
        description="How long one snapshot of the source is held at most. A longer read of an INCREMENTAL stream goes "
        "on under a new one; a FULL_TABLE stream, which must be read under one, is given up with an error.",
    ),
    th.Property(
        "lookback_seconds",
        th.NumberType(minimum=0, maximum=_MOST_SECONDS),
        default=60,
        title="Lookback",
        description="How far before its bookmark an INCREMENTAL stream with a time stamp for key is read again; "
        "at least 5. Of other keys, the bookmark is what was seen that long ago. Rows that are read again unchanged "
        "are not written again.",
    ),
    th.Property(
        "on_stream_error",
        th.StringType,
        allowed_values=["continue", "stop"],
        default="continue",
        title="On a stream's error",
        description="What becomes of the others when a stream can't be read: `continue` reads them, `stop` does not. "
        "Either way the run fails in the end.",
    ),
    th.Property(
        "longest_transaction_seconds",
        th.NumberType(minimum=0, maximum=_MOST_SECONDS),
        default=3600,
        title="Longest transaction",
        description="How long a transaction of the source may be open where open ones can't be seen (on a standby, or "
        "without `pg_read_all_stats`): bookmarks stay that far behind, so that what it commits late is not missed.",
    ),
    th.Property(
        "timestamp_timezone",
        th.StringType,
        title="Zone of time stamps without one",
        description="Time zone in which replication keys of the types `timestamp` and `date` are written, such as "
        "`UTC` or `Europe/Oslo`. Default: unknown; then what is of the last 12 hours is read at each run.",
    ),
    th.Property(
        "allow_duplicates",
        th.ArrayType(th.StringType),
        default=[],
        title="Streams whose rows may double",
        description="INCREMENTAL streams without a primary key that are to be read all the same. Rows at the bookmark "
        "are then loaded again at every run.",
    ),
    th.Property(
        "masks",
        th.ObjectType(additional_properties=th.ObjectType(additional_properties=th.StringType)),
        default={},
        title="Masks",
        description=f"Columns that must not leave the source as they are, {_OF_STREAMS}, each `sha256` (keyed with "
        "`mask_secret`; equal values stay equal), `null` or `redact`.",
    ),
    th.Property(
        "mask_secret",
        th.StringType,
        secret=True,
        title="Mask secret",
        description="Key of the `sha256` masks. Keep it: with another, no old value matches a new one.",
    ),
    th.Property(
        "where",
        th.ObjectType(additional_properties=th.StringType),
        default={},
        title="Where",
        description=f"SQL conditions that rows must meet to be read, {_OF_STREAMS}. A row that ceases to meet its "
        "condition stays in the warehouse as it was.",
    ),
    th.Property(
        "start_date",
        th.StringType,
        title="Start date",
        description="Date or instant, such as 2026-01-31T12:00:00Z, before which INCREMENTAL streams with a time for "
        "replication key are not read, nor rows without a value in it. Streams that are read whole, or by other keys, "
        "are read as ever. With another date, a stream is read again from there; rows that are loaded stay.",
    ),
    th.Property(
        "backfill",
        th.ObjectType(
            additional_properties=th.ObjectType(
                th.Property("from", _KEY_VALUE), th.Property("to", _KEY_VALUE), additional_properties=False
            )
        ),
        default={},
        title="Backfill",
        description=f'What is read again in this run, {_OF_STREAMS}: `{{"from": …, "to": …}}` for rows whose '
        "replication key is at or after the one and before the other, either of which may be missing; `{}` for all "
        "rows, those without a value in it included. The stream must be loaded already, and its bookmark stays where "
        "it is.",
    ),
    th.Property(
        "statement_timeout",
        th.NumberType(minimum=0, maximum=_MOST_TIMEOUT_SECONDS),
        default=0,
        title="Statement timeout",
        description="Seconds after which the source ends a statement; 0 for never.",
    ),
    th.Property(
        "lock_timeout",
        th.NumberType(minimum=0, maximum=_MOST_TIMEOUT_SECONDS),
        default=30,
        title="Lock timeout",
        description="Seconds to try for a table that someone has locked, before giving up; 0 to try for ever. The "
        "other streams are read meanwhile.",
    ),
).to_dict()
