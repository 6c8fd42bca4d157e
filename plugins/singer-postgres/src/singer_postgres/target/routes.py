"""Decides how the rows of a chunk get into the stream's table: copied, added, or merged. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Route(enum.Enum):
    """A chunk's way into the table."""

    COPY = "straight into the table"
    ADD = "through a stage, and all added"
    MERGE = "through a stage, and merged by the key if the stream has one"


@dataclass(frozen=True)
class Routes:
    """What is known of the table that a stream's rows go into.

    Attributes:
        lacks_key: it gets its key at the end of this load, so rows of any snapshot are added; of those that come
            twice, the key's build keeps the newest.
        first_snapshot: the snapshot of which no row is in the table, although that has its key.
        has_defaults: its metadata columns have the defaults that copied rows need.
    """

    lacks_key: bool = False
    first_snapshot: str | None = None
    has_defaults: bool = False

    @classmethod
    def of_first_load(cls, snapshot: str, *, lacks_key: bool, empty: bool, merged: bool) -> Routes:
        """Return the routes of a first load into a table without the defaults.

        Args:
            snapshot: the first one.
            empty: the table has no rows, and no other run loads it.
            merged: the rows are to be merged even so.
        """
        return cls(lacks_key, snapshot if empty and not lacks_key and not merged else None)

    def of(self, snapshot: str) -> Route:
        """Return the route of a chunk that was read under a snapshot."""
        if not self.lacks_key and self.first_snapshot != snapshot:
            return Route.MERGE
        return Route.COPY if self.has_defaults else Route.ADD
