"""The settings that this target adds to the MeltanoLabs target's."""

from __future__ import annotations

from singer_sdk import typing as th

from singer_postgres.core.warehouse.partitions import UNITS

# settings of the MeltanoLabs target and the SDK that have no effect here, by setting and value
WITHOUT_EFFECT: dict[tuple[str, str | None], str] = {
    ("load_method", "overwrite"): "a FULL_TABLE stream replaces its rows; set that method in the tap",
}
# a century; and PostgreSQL's limit, which counts milliseconds in 31 bits
_MOST_DAYS, _MOST_TIMEOUT_SECONDS = 36_525, 2_147_483
# how many values of an integer a range has, or the unit of time that it covers
_WIDTH = th.CustomType(
    {
        "type": ["integer", "string"],
        "minimum": 1,
        "maximum": 2**63 - 1,
        "if": {"type": "string"},
        "then": {"enum": list(UNITS)},
    }
)

SETTINGS = th.PropertiesList(
    th.Property(
        "max_parallel",
        th.IntegerType(minimum=1),
        default=2,
        title="Parallel loads",
        description="How many chunks are loaded at once, each on its own connection.",
    ),
    th.Property(
        "on_stream_error",
        th.StringType,
        allowed_values=["continue", "stop"],
        default="continue",
        title="On a stream's error",
        description="What happens to the other streams when one can't be loaded: `continue` loads them, `stop` does "
        "not. Either way the run fails in the end.",
    ),
    th.Property(
        "max_rejects",
        th.IntegerType(minimum=0),
        default=0,
        title="Rejects at most",
        description="How many records of a stream that its table can't hold are put into `_tidemark_rejects`, with "
        "the reason, before the stream fails.",
    ),
    th.Property(
        "history_days",
        th.NumberType(minimum=0, maximum=_MOST_DAYS),
        default=90,
        title="Days of history",
        description="How long `_tidemark_runs` keeps the outcome of each stream in a run; 0 keeps no history.",
    ),
    th.Property(
        "change_history_days",
        th.NumberType(minimum=0, maximum=_MOST_DAYS),
        default=0,
        title="Days of changes",
        description="How long the tables `<table>_changes` keep a change of a LOG_BASED stream (`change_history` of "
        "the tap); 0 keeps all.",
    ),
    th.Property(
        "raw_partitions",
        th.ObjectType(
            additional_properties=th.ObjectType(
                th.Property("by", th.StringType, allowed_values=["hash", "range"], required=True),
                th.Property("column", th.StringType),
                th.Property("count", th.IntegerType(minimum=2, maximum=1024)),
                th.Property("width", _WIDTH),
                additional_properties=False,
            )
        ),
        default={},
        examples=[{"public-orders": {"by": "range", "width": 10_000_000}}],
        title="Partitioned tables",
        description="Streams whose new tables are partitioned by a `column` of their key (by default its first), by "
        'stream, such as `public-orders`: `{"by": "hash", "count": 16}`, 16 by default, or `{"by": "range", "width": '
        "10000000}`, which needs its width: `day`, `week`, `month` or `year` for a time. A table that is there already "
        "stays as it is.",
    ),
    th.Property(
        "run_id",
        th.StringType,
        title="Run id",
        description="The id of the run in the history. Default: a new UUID.",
    ),
    th.Property(
        "statement_timeout",
        th.NumberType(minimum=0, maximum=_MOST_TIMEOUT_SECONDS),
        default=0,
        title="Statement timeout",
        description="Seconds after which the warehouse ends a statement; 0 means never. What reads a whole table once "
        "its rows are loaded, to build its key or an index, has no limit.",
    ),
    th.Property(
        "lock_timeout",
        th.NumberType(minimum=0, maximum=_MOST_TIMEOUT_SECONDS),
        default=60,
        title="Lock timeout",
        description="Seconds to wait for a lock before giving up; 0 means forever. A lock that makes readers wait in "
        "turn (to alter a table) is tried for half a second at a time, so that readers can pass; if autovacuum alone "
        "holds it, now and then as long as it takes to give way (the server's deadlock_timeout, up to 2.5 seconds).",
    ),
).to_dict()
