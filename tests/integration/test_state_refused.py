"""State, source and warehouse that do not belong together are refused before a row is missed or mixed in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.shop import assert_raw_equals_source
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    """A project after a load. Each test leaves raw equal to the source."""
    yield from make_checkout(stage="loaded")


@pytest.mark.long
def test_state_that_is_ahead_of_the_warehouse_is_refused_with_the_command_that_fixes_it(checkout):
    with checkout.connect("warehouse") as connection:
        connection.execute("truncate raw.products")
    error = checkout.refusal("pipeline")
    assert "public-products" in error
    command = re.search(r"`(meltano run --full-refresh)`", error)
    assert command
    done = checkout.run(*command[1].split(), "tap-postgres", "target-postgres", env={"MELTANO_RUN_FORCE": "1"})
    assert done.returncode == 0, done.stderr
    assert_raw_equals_source(checkout, deleted_stay=True)


@pytest.mark.long
def test_rows_of_another_database_are_not_mixed_into_the_warehouse(checkout):
    with checkout.connect("source", "postgres") as connection:
        connection.execute("create database other_shop")
    other = {"TAP_POSTGRES_DATABASE": "other_shop"}
    checkout.tidemark("demo", "load", "--scale", "0.001", env=other)
    assert "holds the rows of another database" in checkout.refusal("pipeline", env=other)
    # nor without the state
    fresh = {**other, "MELTANO_RUN_STATE_ID_SUFFIX": "other"}
    assert "holds the rows of another database" in checkout.refusal("pipeline", env=fresh)
    assert_raw_equals_source(checkout, deleted_stay=True)


@pytest.mark.long
def test_a_new_warehouse_behind_old_state_is_refused(checkout):
    error = checkout.refusal("pipeline", env={"TARGET_POSTGRES_DATABASE": "other_warehouse"})
    assert "the rows between would be missed" in error
