"""Streams are shared out among shards: each is in one of them, and none has much more to do than another."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from singer_postgres.core.warehouse.shard_plan import balanced

names = st.text("abcdef", min_size=1, max_size=3)
weights = st.dictionaries(names, st.integers(0, 1000), max_size=30).map(
    lambda found: {(name,): weight for name, weight in found.items()}
)


@given(weights, st.integers(1, 6))
def test_each_stream_is_in_one_shard_and_no_shard_has_more_than_its_share_and_one_stream(found, count):
    bins = balanced(found, count, kept=[()] * count)
    assert sorted(chain(*bins)) == sorted(name for (name,) in found)
    loads = [sum(found[name,] for name in streams) for streams in bins]
    assert max(loads) <= sum(loads) / count + max(found.values(), default=0)
    # each run computes the same
    assert bins == balanced(dict(reversed(found.items())), count, kept=[()] * count)


@given(weights, weights, st.integers(1, 6))
def test_streams_stay_in_their_shard_when_others_come_and_go(before, now, count):
    kept = balanced(before, count, kept=[()] * count)
    bins = balanced(now, count, kept=kept)
    assert sorted(chain(*bins)) == sorted(name for (name,) in now)
    for was, is_ in zip(kept, bins, strict=True):
        assert {name for name in was if (name,) in now} <= set(is_)


def test_streams_of_one_slot_stay_together():
    slot = ("customers", "orders", "products")
    for kept in ([(), ()], [("orders",), ("customers", "events")]):
        bins = balanced({slot: 30, ("events",): 10, ("visits",): 10}, 2, kept=kept)
        assert any(set(slot) <= set(streams) for streams in bins)
