"""The settings that this tap adds to the MeltanoLabs tap's."""

from __future__ import annotations

from singer_sdk import typing as th

_OF_STREAMS = "by stream, such as `public-orders`"
# a year; PostgreSQL's limit, 31 bits of milliseconds; a file that still fits on a small disk
_MOST_SECONDS, _MOST_TIMEOUT_SECONDS, _MOST_MB = 366 * 86_400, 2_147_483, 1_048_576
_KEY_VALUE = th.CustomType({"type": ["string", "number", "null"]})

_SLOT = "LOG_BASED streams follow the slot of slot_name, which `tidemark slots create` makes; leave this out"
# settings of the MeltanoLabs tap's own LOG_BASED streams
OF_ANOTHER_SLOT: dict[tuple[str, str | None], str] = {
    ("replication_slot_name", None): _SLOT,
    ("replication_idle_exit_seconds", None): "a run ends where the log was when it began, or after "
    "replication_max_run_seconds; leave this out",
    ("log_based_single_connection", None): "all LOG_BASED streams are followed together; leave this out",
    ("auto_bootstrap_log_based", None): "a new LOG_BASED stream is always read from its table first; leave this out",
}

# settings of the MeltanoLabs tap and the SDK, by name and value; value None stands for any
WITHOUT_EFFECT: dict[tuple[str, str | None], str] = {
    ("batch_config", None): "set use_copy for files of COPY data, or leave it out for records",
    **{
        ("default_replication_method", method): "set it in `metadata`, with "
        f'{{"*": {{"replication-method": "{method}", "replication-key": …}}}}'
        for method in ("INCREMENTAL", "LOG_BASED")
    },
    **OF_ANOTHER_SLOT,
    ("use_singer_decimal", None): "leave it out, because numbers are sent with all their digits",
}

SETTINGS = th.PropertiesList(
    th.Property(
        "use_copy",
        th.BooleanType,
        default=False,
        title="Use COPY",
        description="Send BATCH messages of `pgcopy` files instead of RECORD messages. The target must know the "
        "format, as the target-postgres of this package does, and share a disk with the tap. Streams with stream "
        "maps, flattening or a record limit are still sent as RECORD messages.",
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
        description="Size at which a chunk file ends, in MiB. The transaction that loads a chunk is about as large.",
    ),
    th.Property(
        "chunks_outstanding",
        th.IntegerType(minimum=1),
        title="Chunks outstanding",
        description="How many chunk files may exist at once: those that are being read, that wait, and that the target "
        "is loading. At that many, the tap waits. Default: twice `max_parallel`. Fewer need less disk, and leave "
        "readers or loaders idle.",
    ),
    th.Property(
        "max_parallel",
        th.IntegerType(minimum=1),
        default=2,
        title="Parallel reads",
        description="How many streams, or ranges of one table, are read at once, each on a connection of its own; the "
        "target's `max_parallel` should be as large. "
        "One more connection holds the snapshot, and another looks for sessions that wait for a table.",
    ),
    th.Property(
        "max_source_mb_per_s",
        th.NumberType(minimum=0, maximum=_MOST_MB),
        default=0,
        title="Most to read in a second",
        description="How much may be read from the source in a second, in MiB, by all parallel reads and the reader of "
        "the log together; 0 for no limit. Ranges become smaller, so that each statement still ends in about 10 "
        "seconds.",
    ),
    th.Property(
        "snapshot_seconds",
        th.NumberType(minimum=0, maximum=_MOST_SECONDS),
        default=300,
        title="Snapshot age",
        description="How long one snapshot of the source is held at most. An INCREMENTAL stream that takes longer "
        "continues under a new one, and reads at its end, under one snapshot, what was written meanwhile. A "
        "FULL_TABLE stream needs one snapshot for all its rows, so it fails.",
    ),
    th.Property(
        "lookback_seconds",
        th.NumberType(minimum=0, maximum=_MOST_SECONDS),
        default=60,
        title="Lookback",
        description="How far before its bookmark an INCREMENTAL stream with a timestamp as replication key is read "
        "again; at least 5. For other keys, the bookmark is a value seen that long ago. Rows that are read again "
        "unchanged are not written again.",
    ),
    th.Property(
        "on_stream_error",
        th.StringType,
        allowed_values=["continue", "stop"],
        default="continue",
        title="On a stream's error",
        description="What happens to the other streams when one can't be read: `continue` reads them, `stop` does not. "
        "Either way the run fails at its end.",
    ),
    th.Property(
        "longest_transaction_seconds",
        th.NumberType(minimum=0, maximum=_MOST_SECONDS),
        default=3600,
        title="Longest transaction",
        description="How long a transaction of the source may be open, if open transactions can't be seen (on a "
        "standby, or without `pg_read_all_stats`). Bookmarks stay that far behind, so that no late commit is missed.",
    ),
    th.Property(
        "timestamp_timezone",
        th.StringType,
        title="Zone of timestamps without one",
        description="Time zone in which replication keys of the types `timestamp` and `date` are written, such as "
        "`UTC` or `Europe/Oslo`. Default: unknown; then each run reads the rows of the last 12 hours.",
    ),
    th.Property(
        "allow_duplicates",
        th.ArrayType(th.StringType),
        default=[],
        examples=[["public-orders"]],
        title="Streams with duplicate rows",
        description="INCREMENTAL streams to read although they have no primary key. Each run then loads the rows at "
        "the bookmark again.",
    ),
    th.Property(
        "masks",
        th.ObjectType(additional_properties=th.ObjectType(additional_properties=th.StringType)),
        default={},
        examples=[{"public-orders": {"email": "sha256"}}],
        title="Masks",
        description=f"Columns whose values must not leave the source, {_OF_STREAMS}, each with its mask: `sha256` "
        "(keyed with `mask_secret`; equal values stay equal), `null` or `redact`.",
    ),
    th.Property(
        "mask_secret",
        th.StringType,
        secret=True,
        title="Mask secret",
        description="Key of the `sha256` masks. Keep it: with another key, old and new values don't match.",
    ),
    th.Property(
        "where",
        th.ObjectType(additional_properties=th.StringType),
        default={},
        examples=[{"public-orders": "order_id > 10"}],
        title="Where",
        description=f"SQL conditions that rows must meet to be read, {_OF_STREAMS}. A row that no longer meets its "
        "condition stays unchanged in the warehouse; of LOG_BASED streams, it is deleted.",
    ),
    th.Property(
        "start_date",
        th.StringType,
        title="Start date",
        description="Date or instant, such as 2026-01-31T12:00:00Z. Of INCREMENTAL streams with a timestamp as "
        "replication key, earlier rows are not read, nor rows without a value in the key. Other streams ignore this "
        "setting. If the date changes, a stream is read again from there; loaded rows stay.",
    ),
    th.Property(
        "backfill",
        th.ObjectType(
            additional_properties=th.ObjectType(
                th.Property("from", _KEY_VALUE), th.Property("to", _KEY_VALUE), additional_properties=False
            )
        ),
        default={},
        examples=[{"public-orders": {"from": "2026-01-01"}}],
        title="Backfill",
        description=f'Rows to read again in this run, {_OF_STREAMS}: `{{"from": …, "to": …}}` for rows whose '
        "replication key is at or after `from` and before `to`, either of which may be missing; `{}` for all rows, "
        "including those without a value in the key. The stream must be loaded already, and its bookmark doesn't move.",
    ),
    th.Property(
        "first_load_part",
        th.ObjectType(additional_properties=th.ObjectType()),
        default={},
        title="Part of a first load",
        description=f"Part of a first load that several runs share, {_OF_STREAMS}. `tidemark run --shard` sets it for "
        "each run; set it nowhere else.",
    ),
    th.Property(
        "slot_name",
        th.StringType,
        title="Replication slot",
        description="The slot from which LOG_BASED streams are read. Default: `tidemark_` and the name of the tap.",
    ),
    th.Property(
        "publication_name",
        th.StringType,
        title="Publication",
        description="The publication by which LOG_BASED streams are read. Default: the name of the slot.",
    ),
    th.Property(
        "commit_columns",
        th.ArrayType(th.StringType),
        default=[],
        examples=[["public-orders"]],
        title="Streams with their commits",
        description="LOG_BASED streams whose rows have the transaction that changed them last: `_sdc_lsn`, the "
        "position of its commit, and `_sdc_committed_at`. Both are null until a row changes after its first load.",
    ),
    th.Property(
        "change_history",
        th.ArrayType(th.StringType),
        default=[],
        examples=[["public-orders"]],
        title="Streams with a history of changes",
        description="LOG_BASED streams whose changes are all kept, in a table `<table>_changes` beside theirs.",
    ),
    th.Property(
        "flush_seconds",
        th.NumberType(exclusive_minimum=0, maximum=_MOST_SECONDS),
        default=2,
        title="Flush interval",
        description="The longest time, in seconds, for which changes of LOG_BASED streams are gathered before they are "
        "loaded.",
    ),
    th.Property(
        "replication_max_run_seconds",
        th.NumberType(minimum=0, maximum=_MOST_SECONDS),
        default=0,
        title="Time to follow",
        description="For how long a run follows the log of LOG_BASED streams. With 0, it reads up to where the log was "
        "when the run began, and ends.",
    ),
    th.Property(
        "max_slot_wal_mb",
        th.NumberType(exclusive_minimum=0),
        title="WAL kept for the slot",
        description="How much WAL, in MiB, the source may keep for the slot of LOG_BASED streams. Half of it is warned "
        "of. A run that ends while there is more fails; one that catches up does not. Default: no limit. The server "
        "keeps that of half a minute in any case.",
    ),
    th.Property(
        "max_slot_wal_action",
        th.StringType,
        allowed_values=["fail", "drop"],
        default="fail",
        title="When it keeps more",
        description="What happens at the end of a run when the source keeps more than `max_slot_wal_mb`, and by "
        "`tidemark slots enforce`: `fail`, or also `drop` the slot, so that the source's disk does not fill. Its "
        "streams must then be repaired.",
    ),
    th.Property(
        "stall_seconds",
        th.NumberType(minimum=10, maximum=_MOST_SECONDS),
        default=300,
        title="Longest standstill",
        description="How long the target of LOG_BASED streams may stand still before the session that streams the log "
        "ends, because the source can't shut down while it is open. A long merge is no standstill.",
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
        description="Seconds to wait for a table that another session has locked; 0 for no limit. The other streams "
        "are read meanwhile.",
    ),
).to_dict()
