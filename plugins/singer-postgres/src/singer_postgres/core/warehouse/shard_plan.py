"""`_tidemark_shards`: which streams of a source each of several runs loads, so that together they load all of them.

All runs must have the same plan, or a stream would be loaded by two of them, or by none. So the plan is kept here. The
first run of a further round makes a new one, once every shard had its turn, if none of the others runs.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core import advisory_locks
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    Connection = psycopg.Connection[Any]

TABLE = SystemTable(
    "_tidemark_shards",
    (
        """
        -- One row per shard: the streams that a run with `--shard` loads.
        -- Written by: `tidemark run --shard`.
        -- Read by: `tidemark run --shard`.
        CREATE TABLE {} (
            source text NOT NULL, -- the source database, as in `_tidemark_runs`
            shards integer NOT NULL, -- how many shards there are
            shard integer NOT NULL, -- the number of the shard
            streams jsonb NOT NULL, -- its streams
            bytes bigint NOT NULL, -- about what a run loads of them
            run_id text, -- the run that had its turn; null if that is yet to come
            planned_at timestamptz NOT NULL DEFAULT now(), -- when a run last looked at the plan
            PRIMARY KEY (source, shards, shard)
        )
        """,
    ),
)
# streams that move together, such as those of one replication slot
Group = tuple[str, ...]


@dataclass(frozen=True)
class ShardPlan:
    """The shards of one source.

    Attributes:
        schema: the source's raw schema.
        source: its identity.
        count: how many shards there are.
    """

    schema: str
    source: str
    count: int

    def lock_key(self, shard: int) -> int:
        """Return the key of the advisory lock that a run of a shard holds."""
        return advisory_locks.key("tidemark shard", self.schema, self.source, f"{shard}/{self.count}")

    def take(self, connection: Connection, shard: int, *, run_id: str, weights: Mapping[Group, int]) -> tuple[str, ...]:
        """Return the streams of a shard for the run that takes its turn. The caller keeps out the others.

        Args:
            weights: all streams, with about how many bytes a run loads of them.
        """
        TABLE.ensure(connection, self.schema)
        with connection.transaction():
            rows = connection.execute(
                sql.SQL("SELECT shard, streams, run_id FROM {} WHERE source = %s AND shards = %s").format(self._name),
                [self.source, self.count],
            ).fetchall()
            kept = {number: tuple(streams) for number, streams, _ in rows}
            turns = {number: run for number, _, run in rows}
            if len(kept) != self.count:
                kept, turns = {}, {}
            elif all(turns.values()) and run_id != turns.get(shard):
                # With another plan, the others that run already would miss some streams in this round. So they find
                # that one has had its turn in it.
                turns = {}
                if not self._any_runs(connection, shard):
                    kept = {}
            bins = balanced(weights, self.count, kept=[kept.get(number, ()) for number in range(1, self.count + 1)])
            turns[shard] = run_id
            delete = sql.SQL("DELETE FROM {} WHERE source = %s AND shards = %s").format(self._name)
            connection.execute(delete, [self.source, self.count])
            size = {stream: weight // len(group) for group, weight in weights.items() for stream in group}
            for number, streams in enumerate(bins, start=1):
                connection.execute(
                    sql.SQL(
                        "INSERT INTO {} (source, shards, shard, streams, bytes, run_id) VALUES (%s, %s, %s, %s, %s, %s)"
                    ).format(self._name),
                    [
                        self.source,
                        self.count,
                        number,
                        json.dumps(streams),
                        sum(size[stream] for stream in streams),
                        turns.get(number),
                    ],
                )
        return tuple(bins[shard - 1])

    def move(self, connection: Connection, stream: str, shard: int) -> None:
        """Give a stream to a shard for the rest of the round: to its run, and to the retry if that one is killed.

        Args:
            stream: one that moves alone.
        """
        connection.execute(
            sql.SQL(
                "UPDATE {} SET streams = streams - %(stream)s::text || "
                "CASE WHEN shard = %(shard)s THEN to_jsonb(array[%(stream)s::text]) ELSE '[]' END "
                "WHERE source = %(source)s AND shards = %(shards)s"
            ).format(self._name),
            {"stream": stream, "shard": shard, "source": self.source, "shards": self.count},
        )

    @property
    def _name(self) -> sql.Composable:
        return TABLE.in_statement(self.schema)

    def _any_runs(self, connection: Connection, shard: int) -> bool:
        """Return whether a run of another shard is active."""
        held = advisory_locks.held(connection)
        return any(self.lock_key(other) in held for other in range(1, self.count + 1) if other != shard)


def balanced(weights: Mapping[Group, int], count: int, *, kept: Sequence[Sequence[str]]) -> list[list[str]]:
    """Share out streams among `count` bins of about the same weight: the largest first, each to the lightest bin.

    Args:
        kept: streams that stay in a bin, by bin. A group that is in several is in the first of them.
    """
    of_stream = {stream: number for number in reversed(range(count)) for stream in kept[number]}
    bins: list[list[str]] = [[] for _ in range(count)]
    totals = [0] * count
    left = []
    for group, weight in sorted(weights.items(), key=lambda each: (-each[1], each[0])):
        place = min((of_stream[stream] for stream in group if stream in of_stream), default=None)
        if place is None:
            left.append((group, weight))
            continue
        bins[place] += group
        totals[place] += weight
    heap = [(total, number) for number, total in enumerate(totals)]
    heapq.heapify(heap)
    for group, weight in left:
        total, number = heapq.heappop(heap)
        bins[number] += group
        heapq.heappush(heap, (total + weight, number))
    return bins
