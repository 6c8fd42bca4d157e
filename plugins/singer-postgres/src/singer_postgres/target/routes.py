"""Decides how the rows of a chunk get into the stream's table: copied, added, or merged. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Route(enum.Enum):
    """A chunk's way into the table."""

    COPY = "straight into the table"
    ADD = "through a stage, and all added"
    MERGE = "through a stage, and merged by the key"


@dataclass
class Routes:
    """What is known of the table that a stream's rows go into.

    Attributes:
        lacks_key: it gets its key at the end of this load, so rows of any snapshot are added; of those that come
            twice, the key's build keeps the newest.
        key_first: it is to get its key before any row is loaded.
        first_snapshot: the snapshot of which no row is in the table, although that has its key.
        has_defaults: its metadata columns have the defaults that copied rows need.
    """

    lacks_key: bool = False
    key_first: bool = False
    first_snapshot: str | None = None
    has_defaults: bool = False

    def of(self, snapshot: str) -> Route:
        """Return the way of a chunk that was read under a snapshot."""
        if not self.lacks_key and self.first_snapshot != snapshot:
            return Route.MERGE
        return Route.COPY if self.has_defaults else Route.ADD
