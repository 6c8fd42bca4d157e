"""kill -9 of Meltano, tap, target and warehouse while `meltano run` loads LOG_BASED streams of an open shop."""

from __future__ import annotations

import random
import sys
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.chaos.conftest import LONG
from tests.chaos.test_kills import EXTRACT, KILLS, SEED, assert_nobody_is_left, server, strike
from tests.chaos.traffic import Traffic
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

# `make chaos` runs it; the tests of tap and target alone have a short form for `make test`
pytestmark = [] if LONG else [pytest.mark.long]
FOLLOWED = ("orders", "order_items")
VICTIMS = ("meltano", "target", "postmaster", "tap")
ORPHANS = """
    select count(*) from raw.order_items i
    where not exists (select from raw.orders o where o.order_id = i.order_id and o._sdc_deleted_at is null)
        and i._sdc_deleted_at is null
        and (select count(*) from raw._tidemark_state where stream ~ 'orders|order_items' and slot is not null) = 2
"""


@pytest.fixture
def following() -> Iterator[Checkout]:
    """The demo shop, whose orders follow the log."""
    for checkout in make_checkout(stage="loaded"):
        definition = checkout.root / "extract" / "extractors.meltano.yml"
        text = definition.read_text()
        for name in FOLLOWED:
            text = text.replace(f"public-{name}: *incremental", f"public-{name}: {{replication-method: LOG_BASED}}")
        definition.write_text(text)
        checkout.refusal("slots", "create")
        checkout.tidemark("down")
        checkout.tidemark("up")
        checkout.tidemark("slots", "create")
        checkout.extract_and_load()
        yield checkout


def read(checkout: Checkout, ended: threading.Event, seen: list[int]) -> None:
    """Look for items without their order, again and again."""
    while not ended.wait(0.05):
        try:
            with checkout.connect("warehouse") as connection:
                while not ended.wait(0.05):
                    row = connection.execute(ORPHANS).fetchone()
                    assert row
                    seen.append(row[0])
        except psycopg.OperationalError:
            # it was killed
            continue


@pytest.mark.timeout(7200)
def test_kills_under_meltano_lose_no_change_of_the_log_and_show_no_item_without_its_order(following):
    checkout, killed, draw = following, dict.fromkeys(VICTIMS, 0), random.Random(SEED)
    ended, seen = threading.Event(), list[int]()
    reader = threading.Thread(target=read, args=(checkout, ended, seen))
    reader.start()
    kills = KILLS if not LONG else max(KILLS // 4, 4)
    try:
        with Traffic(lambda: checkout.connect("source")):
            for number in range(3 * kills):
                victim = VICTIMS[number % len(VICTIMS)]
                if strike(checkout, EXTRACT, victim, after_s=draw.uniform(1, 6)):
                    killed[victim] += 1
                if sum(killed.values()) == kills:
                    break
    finally:
        ended.set()
        reader.join()
    assert sum(killed.values()) == kills, killed
    if server(checkout) is None:
        checkout.tidemark("up")
    checkout.extract_and_load()
    for table in FOLLOWED:
        columns = "to_jsonb(t) - '{_sdc_extracted_at,_sdc_received_at,_sdc_batched_at,_sdc_deleted_at,_sdc_sequence,"
        columns += "_sdc_table_version,_sdc_sync_started_at,_tidemark_loaded_xid}'::text[]"
        there = checkout.rows("source", f"select to_jsonb(t) from {table} t")
        here = checkout.rows("warehouse", f"select {columns} from raw.{table} t where _sdc_deleted_at is null")
        assert sorted(map(str, there)) == sorted(map(str, here)), table
    assert seen
    assert set(seen) == {0}
    assert_nobody_is_left(checkout)
    sys.__stderr__.write(f"killed {kills} times under Meltano: {killed}; reads: {len(seen)}\n")
