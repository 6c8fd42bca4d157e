"""Whatever happens between two builds, and whichever are killed, the marts end equal to a full build."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests import programs
from tests.integration.marts import assert_as_a_full_build_has_them, delete, load, undelete
from tests.integration.stages import make_checkout
from tests.servers import INSTALLATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

ROUNDS = int(os.environ.get("CRASHES", "2"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    # on the system's PostgreSQL, if there is one, because the other tests of the marts run on the newest
    yield from make_checkout("system" if "system" in INSTALLATIONS else "embedded", stage="built")


def change(project: Checkout, draw: random.Random) -> None:
    """Simulate a day's traffic in the shop."""
    project.tidemark("demo", "change", "--rows", str(draw.randint(20, 200)), "--seed", str(draw.randint(1, 10_000)))


def sync(project: Checkout, _: random.Random) -> None:
    project.extract_and_load()


def repair(project: Checkout, _: random.Random) -> None:
    """Mark rows as deleted that the shop no longer has."""
    project.tidemark("reconcile", "--repair", "--allow-deletes", "20%")


def build(project: Checkout, draw: random.Random) -> None:
    """Build everything or a part; the next build catches up."""
    project.build(
        *draw.choice([(), ("--select", "fct_sales"), ("--select", "dim_customers"), ("--exclude", "fct_orders")])
    )


def killed_build(project: Checkout, draw: random.Random) -> None:
    """Start a build and kill dbt at a random moment."""
    run = project.start("invoke", "dbt-postgres:run", program="meltano")
    deadline = time.monotonic() + 30
    while run.poll() is None and time.monotonic() < deadline:
        found = [
            each
            for each in psutil.Process(run.pid).children(recursive=True)
            if "tidemark-dbt" in str(programs.command_line(each))
        ]
        if found:
            time.sleep(draw.uniform(1, 5))
            for each in found:
                if each.is_running():
                    each.kill()
            break
        time.sleep(0.05)
    run.communicate(timeout=60)


def corrections(project: Checkout, draw: random.Random) -> None:
    """Rare changes: rows move to another parent or month, go or come back, or are edited by hand without a stamp."""
    line, other, order = draw.randint(1, 2000), draw.randint(1, 900), draw.randint(1, 900)
    customer = draw.randint(1, 20)
    statements = [
        load("order_items", f"order_id = {other}", f"order_item_id = {line}"),
        load("orders", f"customer_id = {draw.randint(1, 200)}", f"order_id = {order}"),
        load("orders", f"ordered_at = ordered_at - interval '{draw.randint(1, 90)} days'", f"order_id = {other}"),
        delete("order_items", f"order_item_id % 97 = {line % 97}"),
        undelete("order_items", f"order_item_id % 97 = {line % 97}"),
        delete("orders", f"order_id = {order}"),
        undelete("orders", f"order_id = {order}"),
        delete("customers", f"customer_id = {customer}"),
        undelete("customers", f"customer_id = {customer}"),
        # as a repair loads rows that changed without a stamp
        load("customers", f"city = 'No. {other}'", f"customer_id % 10 = {customer % 10}"),
        f"delete from raw.order_items where order_item_id % 89 = {line % 89}",
        f"update raw.order_items set order_id = {order} where order_item_id = {line}",
        f"update raw.orders set shipping_fee = shipping_fee + 1 where order_id % 50 = {order % 50}",
        f"update raw.customers set country = 'QQ' where customer_id = {customer}",
        f"update raw.products set category = 'No. {other}' where product_id % 7 = {line % 7}",
    ]
    with project.connect("warehouse") as connection:
        for statement in draw.sample(statements, 6):
            connection.execute(statement)


def late_commit(project: Checkout, draw: random.Random) -> None:
    """Commit a chunk only after a build that started while it was open."""
    with project.connect("warehouse") as loader:
        loader.autocommit = False
        loader.execute(load("order_items", "quantity = quantity + 1", f"order_item_id % 50 = {draw.randint(0, 49)}"))
        build(project, draw)
        loader.commit()


STEPS = (change, sync, repair, build, killed_build, corrections, late_commit)


# test_marts.py tests each of these separately
@pytest.mark.long
@pytest.mark.parametrize("number", range(ROUNDS))
def test_any_order_of_loads_changes_deletes_and_killed_builds_ends_as_a_full_build(project, number):
    draw = random.Random(f"{SEED} {number}")
    steps = [draw.choice(STEPS) for _ in range(6 if ROUNDS > 2 else 4)]
    for step in steps:
        step(project, draw)
    project.build()
    assert_as_a_full_build_has_them(project)
    # some orders were moved to a time before their customers existed, and some values do not occur in the shop
    tested = project.dbt("test", "--exclude", "a_sale_has_one_version_of_its_customer", "test_name:accepted_values")
    assert tested.returncode == 0, tested.stdout
