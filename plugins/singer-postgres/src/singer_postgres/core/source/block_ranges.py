"""Cuts tables into ranges of blocks. Pure.

A range of blocks (`ctid >= … and ctid < …`) is the cheapest for PostgreSQL to find: it needs no index, reads each block
once and in order, and any number of ranges can be read at once. Ranges are exact under one snapshot. Across snapshots a
row can move to a block that was read before; see `tap.passes`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from singer_postgres.core.source.relations import Leaf
    from singer_postgres.core.wire import BlockRange

_L = TypeVar("_L")
# a smaller range costs more in transactions than it gains in overlap
_SMALLEST_BYTES = 8 * 2**20
# COPY's text is about as large as the table, and rarely much larger
_FILL = 0.6


def cut(leaves: Sequence[Leaf], *, chunk_bytes: int, parallel: int) -> list[tuple[Leaf, BlockRange]]:
    """Return the ranges that cover `leaves`. Each fills about one chunk, or less if the tables have only a few chunks.

    The last range of each leaf has no end, so it includes rows added after its size was measured.
    """
    total = sum(leaf.bytes for leaf in leaves)
    size = min(chunk_bytes * _FILL, max(min(_SMALLEST_BYTES, chunk_bytes * _FILL), total / (4 * parallel)))
    ranges: list[tuple[Leaf, BlockRange]] = []
    for leaf in leaves:
        per_block = leaf.bytes / leaf.blocks if leaf.blocks else size
        step = max(1, math.floor(size / max(per_block, 1)))
        starts = range(0, max(leaf.blocks, 1), step)
        ranges.extend(
            (leaf, (leaf.relfilenode, start, start + step if start + step < leaf.blocks else None)) for start in starts
        )
    return ranges


def remaining(ranges: Iterable[tuple[_L, BlockRange]], done: Iterable[BlockRange]) -> list[tuple[_L, BlockRange]]:
    """Return `ranges` without `done`."""
    gone: dict[int, list[tuple[int, float]]] = {}
    for node, first, after in merged(done):
        gone.setdefault(node, []).append((first, math.inf if after is None else after))
    left: list[tuple[_L, BlockRange]] = []
    for leaf, (node, first, after) in ranges:
        end = math.inf if after is None else after
        at: float = first
        # the gap before each finished piece, and the one after the last piece
        for gone_first, gone_after in [*gone.get(node, ()), (end, math.inf)]:
            upto = min(gone_first, end)
            if at < upto:
                left.append((leaf, (node, int(at), None if upto == math.inf else int(upto))))
            at = max(at, gone_after)
    return left


def within(ranges: Iterable[tuple[Leaf, BlockRange]], part: Sequence[BlockRange]) -> list[tuple[Leaf, BlockRange]]:
    """Return what of `ranges` lies in `part`."""
    ranges = list(ranges)
    return remaining(ranges, [blocks for _, blocks in remaining(ranges, part)])


def share(ranges: Iterable[tuple[Leaf, BlockRange]], leaves: Sequence[Leaf]) -> float:
    """Return how much of `leaves` lies in `ranges`, from 0 to 1; 1 if they are empty."""
    bytes_ = 0.0
    for leaf, (_, first, after) in ranges:
        end = min(after or leaf.blocks, leaf.blocks)
        bytes_ += leaf.bytes * max(0, end - first) / max(leaf.blocks, 1)
    return bytes_ / total if (total := sum(leaf.bytes for leaf in leaves)) else 1.0


def parts(leaves: Sequence[Leaf], *, part_bytes: float) -> list[list[BlockRange]]:
    """Return lists of ranges, each of about `part_bytes`, that together cover `leaves` as they were measured.

    The ranges have ends: rows added after that are left to a run that reads the rest.
    """
    found: list[list[BlockRange]] = []
    room = 0.0
    for leaf in leaves:
        at = 0
        while at < leaf.blocks:
            per_block = max(leaf.bytes / leaf.blocks, 1)
            if room < per_block:
                found.append([])
                room = max(part_bytes, per_block)
            after = min(leaf.blocks, at + math.floor(room / per_block))
            found[-1].append((leaf.relfilenode, at, after))
            room -= (after - at) * per_block
            at = after
    return found


def merged(ranges: Iterable[BlockRange]) -> list[BlockRange]:
    """Return `ranges` sorted, with adjacent ones joined."""
    result: list[BlockRange] = []
    for node, first, after in sorted(ranges, key=lambda r: (r[0], r[1])):
        if result and result[-1][0] == node and (result[-1][2] is None or result[-1][2] >= first):
            last = result[-1][2]
            result[-1] = (node, result[-1][1], None if last is None or after is None else max(last, after))
        else:
            result.append((node, first, after))
    return result
