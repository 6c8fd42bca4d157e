"""The shop's own models equal their SELECTs after whatever happens in the source, to the loader, or to a build.

test_in_place_property.py has models of other shapes, on raw tables that it writes itself.
"""

from __future__ import annotations

import json
import os
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests import programs
from tests.integration.marts import IN_PLACE, SNAPSHOTS
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]
EXAMPLES = int(os.environ.get("EXAMPLES", os.environ.get("CRASHES", "4")))
# the lines are replaced whole by some loads, so that their keys may change
_WHOLE = {"TAP_POSTGRES__METADATA": json.dumps({"public-order_items": {"replication-method": "FULL_TABLE"}})}
_LINES = "order_id, product_id, quantity, unit_price, unit_cost, discount, created_at, updated_at"
# changes of the source that a load finds
_UPDATES = (
    "update order_items set quantity = quantity + 1, updated_at = now() where order_item_id in ({lines})",
    # to another order, which gets its customer's line
    (
        "update order_items set order_id = (select min(order_id) from order_items), updated_at = now() "
        "where order_item_id in ({lines})"
    ),
    "update orders set status = 'cancelled', cancelled_at = now(), updated_at = now() where order_id in ({orders})",
    (
        "update orders set customer_id = (select max(customer_id) from customers), updated_at = now() "
        "where order_id in ({orders})"
    ),
    # to another day and month, and so to another partition
    "update orders set ordered_at = ordered_at - interval '35 days', updated_at = now() where order_id in ({orders})",
    (
        "update customers set country = case country when 'DE' then 'FR' else 'DE' end, updated_at = now() "
        "where customer_id in (select customer_id from orders where order_id in ({orders}))"
    ),
    (
        "update products set category = 'Toys', price = price + 1, updated_at = now() "
        "where product_id in (select product_id from order_items where order_item_id in ({lines}))"
    ),
)
# and what only a load of the whole stream or a repair finds
_UNSEEN = (
    "delete from order_items where order_id in ({orders}); delete from orders where order_id in ({orders})",
    "delete from order_items where order_item_id in ({lines})",
)
_CHANGES = (*_UPDATES, *_UNSEEN[1:])
# in raw, by hand
_EDITS = (
    "update raw.order_items set quantity = quantity + 5, order_id = order_id + 1 where order_item_id in ({lines})",
    "delete from raw.orders where order_id in ({orders})",
    "update raw.orders set shipping_fee = shipping_fee + 1, customer_id = 1 where order_id in ({orders})",
)


class World:
    """The shop, its loads and its builds."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.draw = random.Random(0)

    def change(self, among: tuple[str, ...], side: str = "source", connection: Any = None) -> None:
        """Make one change to a few rows of the source, or of raw."""
        prefix = "raw." if side == "warehouse" else ""
        with self.checkout.connect(side) as own:
            few = {
                name: f"select {key} from {prefix}{table} order by {key} offset {self.draw.randint(0, 900)} limit 4"
                for name, table, key in (
                    ("lines", "order_items", "order_item_id"),
                    ("orders", "orders", "order_id"),
                )
            }
            ids = {
                name: ", ".join(str(number) for (number,) in own.execute(query.encode())) or "null"
                for name, query in few.items()
            }
            statements = self.draw.choice(among).format(**ids)
            note(f"{side}: {statements}")
            (connection or own).execute(statements.encode())

    def load(self, env: dict[str, str] | None = None) -> None:
        self.checkout.extract_and_load(env)

    def repair(self) -> None:
        self.checkout.tidemark("reconcile", "--repair", "--allow-deletes", "100%")

    def kill_load(self, seconds: float) -> None:
        """Start a load and kill it with all that it started."""
        process = self.checkout.start("run", "tap-postgres", "target-postgres", program="meltano")
        time.sleep(seconds)
        os.killpg(process.pid, 9)
        process.communicate(timeout=60)

    def kill_build(self, seconds: float) -> None:
        """Start a build and kill it."""
        with (self.checkout.root / "killed.log").open("wb+") as log, open("/dev/null", "rb") as nothing:  # noqa: PTH123
            run = programs.start(
                [programs.DBT, "run"],
                stdin=nothing,
                stdout=log,
                stderr=log,
                cwd=self.checkout.root,
                env=self.checkout.dbt_environment(),
            )
            time.sleep(seconds)
            run.kill()
            run.wait(timeout=60)

    def differing(self) -> dict[str, list[Any]]:
        """Return rows that a mart has and its SELECT has not, or the other way round, with the side that has them."""
        compiled = {path.stem: path.read_text() for path in self._compiled.rglob("*.sql")}
        found = {}
        for name in (*IN_PLACE, *SNAPSHOTS):
            table = f"marts.{name}" if name in IN_PLACE else f"intermediate.{name}"
            # in the types of the table's contract. A deletion that a repair took back changes no value of a snapshot
            columns = ", ".join(
                f"{column}::{kind} as {column}"
                for column, kind in self.checkout.rows(
                    "warehouse",
                    f"select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = "
                    f"'{table}'::regclass and attnum > 0 and not attisdropped and attname !~ '^(dbt_|changed_at$)'",
                )
            )
            if name in IN_PLACE:
                sides = f"(table {table})", f"({compiled[name]})"
            else:
                last = f"(select * from {table} where dbt_valid_to is null)"
                sides = last, f"(table staging.stg_{name.removesuffix('_snapshot')})"
            # as text, in which 1.0 is not 1.00
            left, right = (f"select t::text from (select {columns} from {side} as t) as t" for side in sides)
            query = (
                f"select 'table' as side, t from ({left} except all {right}) as t "
                f"union all select 'truth', t from ({right} except all {left}) as t"
            )
            if rows := self.checkout.rows("warehouse", query):
                found[name] = rows[:20]
        return found

    @property
    def _compiled(self) -> Any:
        return self.checkout.root / ".meltano" / "dbt" / "target" / "compiled"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with contextmanager(make_checkout)(stage="built") as checkout:
        yield World(checkout)


# what may happen. The source has changed before each of them, and all is loaded after it


def traffic(world: World) -> None:
    world.checkout.tidemark("demo", "change", "--rows", "60", "--seed", str(world.draw.randint(1, 10**6)))


def late_commit(world: World) -> None:
    with world.checkout.connect("source") as late, late.transaction():
        world.change(_UPDATES, connection=late)
        world.load()
        world.checkout.build()


def unseen_deletes(world: World) -> None:
    world.change(_UNSEEN)
    world.repair()


def edits_by_hand(world: World) -> None:
    world.change(_EDITS, side="warehouse")
    world.checkout.build()
    world.repair()


def whole_stream(world: World) -> None:
    world.load({**_WHOLE, "TARGET_POSTGRES_HARD_DELETE": world.draw.choice(["true", "false"])})
    world.checkout.build()


def renamed_keys(world: World) -> None:
    with world.checkout.connect("source") as connection:
        connection.execute(
            f"with gone as (delete from order_items where order_item_id % 97 = {world.draw.randint(0, 96)} "
            f"returning *) insert into order_items ({_LINES}) select {_LINES} from gone".encode()
        )
    world.load({**_WHOLE, "TARGET_POSTGRES_HARD_DELETE": "true"})


def backfill(world: World) -> None:
    world.checkout.tidemark("backfill", "public-orders", "--from", "2020-01-01", "--to", "2100-01-01")


def killed_load(world: World) -> None:
    world.kill_load(world.draw.uniform(1, 4))


def killed_build(world: World) -> None:
    world.load()
    world.kill_build(world.draw.uniform(0.5, 6))


def partial_build(world: World) -> None:
    world.load()
    world.checkout.build("--select", world.draw.choice(("+fct_orders", "fct_sales", "dim_customers+")))


def full_refresh(world: World) -> None:
    world.load()
    world.checkout.build("--full-refresh")


STEPS = (
    *(traffic, traffic, late_commit, unseen_deletes, edits_by_hand, whole_stream, renamed_keys, backfill),
    *(killed_load, killed_build, partial_build, full_refresh),
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    # an example takes many builds, so a failing one is printed and not made smaller
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(seed=st.integers(0, 10_000), steps=st.lists(st.sampled_from(STEPS), min_size=3, max_size=6))
def test_the_shops_models_equal_their_selects_after_whatever_happens(world, seed, steps):
    world.draw = random.Random(seed)
    for step in steps:
        note(step.__name__)
        for _ in range(world.draw.randint(0, 3)):
            world.change(_CHANGES)
        step(world)
        world.load()
        printed = world.checkout.build()
        assert world.differing() == {}, printed
