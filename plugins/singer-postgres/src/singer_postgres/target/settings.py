"""The settings that this target adds to the MeltanoLabs target's."""

from __future__ import annotations

from singer_sdk import typing as th

# settings of the MeltanoLabs target and the SDK that have no effect here, by setting and value
WITHOUT_EFFECT: dict[tuple[str, str | None], str] = {
    ("load_method", "overwrite"): "a stream that is read whole takes the place of its rows; have the tap read it so",
}
# a century; and PostgreSQL's limit, which counts milliseconds in 31 bits
_MOST_DAYS, _MOST_TIMEOUT_SECONDS = 36_525, 2_147_483

SETTINGS = th.PropertiesList(
    th.Property(
        "max_parallel",
        th.IntegerType(minimum=1),
        default=2,
        title="Parallel loads",
        description="How many chunks are loaded at once, each on a connection of its own.",
    ),
    th.Property(
        "on_stream_error",
        th.StringType,
        allowed_values=["continue", "stop"],
        default="continue",
        title="On a stream's error",
        description="What becomes of the others when a stream can't be loaded: `continue` loads them, `stop` does not. "
        "Either way the run fails in the end.",
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
        description="How long `_tidemark_runs` keeps what became of each stream in a run; 0 to keep no history.",
    ),
    th.Property(
        "run_id",
        th.StringType,
        title="Run id",
        description="Names the run in the history. Default: a new UUID.",
    ),
    th.Property(
        "statement_timeout",
        th.NumberType(minimum=0, maximum=_MOST_TIMEOUT_SECONDS),
        default=0,
        title="Statement timeout",
        description="Seconds after which the warehouse ends a statement; 0 for never.",
    ),
    th.Property(
        "lock_timeout",
        th.NumberType(minimum=0, maximum=_MOST_TIMEOUT_SECONDS),
        default=60,
        title="Lock timeout",
        description="Seconds to wait for what someone has locked, before giving up; 0 to wait for ever. What makes "
        "readers wait in turn (a table that is altered) is tried for half a second at a time, and lets them pass.",
    ),
).to_dict()
