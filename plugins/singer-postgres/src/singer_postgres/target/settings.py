"""The settings that this target adds to the MeltanoLabs target's."""

from __future__ import annotations

from singer_sdk import typing as th

SETTINGS = th.PropertiesList(
    th.Property(
        "max_parallel",
        th.IntegerType,
        default=2,
        title="Parallel loads",
        description="How many chunks are loaded at once, each on a connection of its own.",
    ),
    th.Property(
        "statement_timeout",
        th.NumberType,
        default=0,
        title="Statement timeout",
        description="Seconds after which the warehouse ends a statement; 0 for never.",
    ),
    th.Property(
        "lock_timeout",
        th.NumberType,
        default=60,
        title="Lock timeout",
        description="Seconds to wait for what someone has locked, before giving up; 0 to wait for ever.",
    ),
).to_dict()
