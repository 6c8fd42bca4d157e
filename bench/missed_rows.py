"""What an incremental model can miss: events after which all marts are built and compared with this project's."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.mart_differences import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.integration.checkout import Checkout

    from bench.dbt_builds import Builder

Missed = dict[str, dict[str, tuple[int, int]]]
"""For each peer and model, the rows that it lacks, and those that it should not have."""
_RENAMED = "update products set category = 'Toys' where product_id % 100 = 0"
# old lines, which no change of the shop touches
_LATE = """
    update raw.order_items
    set quantity = quantity + 1, _sdc_batched_at = now(), _tidemark_loaded_xid = pg_current_xact_id()
    where order_item_id in (select order_item_id from raw.order_items order by order_item_id limit 100)
"""


class Events:
    """The events, in turn; each peer keeps what it missed before."""

    def __init__(self, checkout: Checkout, builders: Sequence[Builder], change_and_load: Callable[[], None]) -> None:
        self._checkout = checkout
        self._own, *self._peers = self._builders = builders
        self._change_and_load = change_and_load

    def happen(self) -> Iterator[tuple[str, Missed]]:
        """Yield each event with what the peers' marts miss by then."""
        yield "the timed changes", self._compare()
        self._repair()
        yield "`tidemark reconcile --repair` marks the rows that the shop deleted meanwhile", self._build_and_compare()
        with self._checkout.connect("source") as connection:
            connection.execute(_RENAMED.encode())
        self._change_and_load()
        yield "1 % of the products get into category Toys, and a change is loaded", self._build_and_compare()
        with self._late_commit():
            self._change_and_load()
            self._build()
        yield "a transaction with 100 updated lines commits after the build of a later load", self._build_and_compare()

    def _repair(self) -> None:
        run = self._checkout.start("reconcile", "--repair")
        printed, _ = run.communicate()
        if run.returncode:
            sys.exit(f"error: {printed}")

    @contextmanager
    def _late_commit(self) -> Iterator[None]:
        with self._checkout.connect("warehouse") as connection, connection.transaction():
            connection.execute(_LATE.encode())
            yield

    def _build(self) -> None:
        for builder in self._builders:
            builder.build()

    def _build_and_compare(self) -> Missed:
        self._build()
        return self._compare()

    def _compare(self) -> Missed:
        return {
            peer.name: {
                model: differences(self._checkout, model, self._own.marts, peer.marts)
                for model in self._shared_marts(peer)
            }
            for peer in self._peers
        }

    def _shared_marts(self, peer: Builder) -> list[str]:
        query = "select array_agg(relname::text order by 1) from pg_class where relnamespace = '{}'::regnamespace"
        own, theirs = (
            self._checkout.rows("warehouse", f"{query.format(schema)} and relkind in ('r', 'p', 'v', 'm')")[0][0]
            for schema in (self._own.marts, peer.marts)
        )
        return [name for name in theirs if name in own]
