"""Ranges of blocks together cover the table, whatever was loaded before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singer_postgres.core.source.block_ranges import cut, merged, parts, remaining, share, within
from singer_postgres.core.source.relations import Leaf

BLOCK = 8192
END = 60


def leaf(blocks: int, node: int = 1) -> Leaf:
    return Leaf(
        oid=node, schema="public", name="t", relfilenode=node, blocks=blocks, bytes=blocks * BLOCK, readable=True
    )


def blocks_of(ranges):
    """Return all blocks of all ranges; an open range ends at END."""
    return [(node, block) for node, first, after in ranges for block in range(first, END if after is None else after)]


pieces = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.integers(0, END - 1), st.none() | st.integers(1, END)).filter(
        lambda piece: piece[2] is None or piece[1] < piece[2]
    ),
    max_size=8,
)
leaves = st.lists(st.integers(0, END), min_size=1, max_size=2).map(
    lambda sizes: [leaf(size, node) for node, size in enumerate(sizes, start=1)]
)
chunk_bytes = st.integers(1, 40 * BLOCK)


@given(leaves, chunk_bytes, st.integers(1, 8))
def test_the_ranges_of_a_table_hold_every_block_once_including_later_ones(parts, size, parallel):
    found = blocks_of(block_range for _, block_range in cut(parts, chunk_bytes=size, parallel=parallel))
    assert sorted(found) == [(part.relfilenode, block) for part in parts for block in range(END)]


@given(leaves, chunk_bytes, pieces)
def test_remaining_and_loaded_ranges_together_are_the_table(parts, size, done):
    whole = cut(parts, chunk_bytes=size, parallel=2)
    left = blocks_of(block_range for _, block_range in remaining(whole, done))
    assert len(left) == len(set(left))
    loaded = {block for block in blocks_of(done) if block[0] <= len(parts)}
    assert not loaded & set(left)
    assert loaded | set(left) == set(blocks_of(block_range for _, block_range in whole))


@given(leaves, chunk_bytes, st.integers(1, 30 * BLOCK))
def test_the_parts_of_a_shared_load_and_the_rest_hold_every_block_once(tables, size, part_bytes):
    whole = cut(tables, chunk_bytes=size, parallel=2)
    found = parts(tables, part_bytes=part_bytes)
    # each run reads what lies in its part, and the last one what is left
    read = [block_range for part in found for _, block_range in within(whole, part)]
    rest = [block_range for _, block_range in remaining(whole, [block for part in found for block in part])]
    every = [(table.relfilenode, block) for table in tables for block in range(END)]
    assert sorted([*blocks_of(read), *blocks_of(rest)]) == every
    assert all(sum(after - first for _, first, after in part) * BLOCK <= max(part_bytes, BLOCK) for part in found)
    # by which a run tells how far its part is
    if any(table.blocks for table in tables):
        assert sum(share(within(whole, part), tables) for part in found) == pytest.approx(1)


@given(pieces)
def test_adjacent_ranges_are_merged(done):
    found = merged(done)
    assert set(blocks_of(found)) == set(blocks_of(done))
    assert len(found) == len(merged(found))
