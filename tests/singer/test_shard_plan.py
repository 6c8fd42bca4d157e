"""The plan of a load's shards, which all of its runs find in the warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from singer_postgres.core.warehouse.shard_plan import ShardPlan
from tests import advisory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.singer.conftest import Pipe

PLAN = ShardPlan("raw", "source", 2)


@pytest.fixture
def take(pipe: Pipe) -> Iterator[Callable[..., set[str]]]:
    with pipe.warehouse() as warehouse:
        warehouse.execute("create schema raw")

        def taken(shard: int, run_id: str, **bytes_: int) -> set[str]:
            weights = {(stream,): size for stream, size in bytes_.items()}
            return set(PLAN.take(warehouse, shard, run_id=run_id, weights=weights))

        yield taken


def test_the_shards_of_a_round_have_one_plan_although_sizes_change_and_the_next_round_has_another(take):
    assert take(1, "monday", a=9, b=5, c=5) == {"a"}
    # a stream that is new belongs to the shard with the least to do
    assert take(2, "monday", a=1, b=50, c=5, d=1) == {"b", "c"}
    # a retry
    assert take(1, "monday", a=1, b=50, c=5, d=1) == {"a", "d"}
    assert take(2, "tuesday", a=1, b=50, c=5, d=1) == {"a", "c", "d"}
    assert take(1, "tuesday", a=99, b=1, c=1, d=1) == {"b"}


def test_a_shard_that_missed_a_round_or_still_runs_keeps_the_plan(take, pipe):
    assert take(1, "1", a=9, b=5) == {"a"}
    # the other had no turn: the streams that it has would be loaded by nobody
    assert take(1, "2", a=5, b=9) == {"a"}
    assert take(2, "2", a=5, b=9) == {"b"}
    with pipe.warehouse() as running, advisory.held(running, PLAN.lock_key(2)):
        assert take(1, "3", a=5, b=9) == {"a"}
    # with another plan, nobody would load its stream in this round
    assert take(2, "3", a=5, b=9) == {"b"}
    assert take(1, "4", a=5, b=9) == {"b"}
