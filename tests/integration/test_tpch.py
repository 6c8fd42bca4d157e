"""Six queries of TPC-H, each built by its key from tables that are refreshed, against DuckDB's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.stages import make_checkout
from tests.integration.tpch import KEYS, ORDER, Tpch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# creates an environment for DuckDB, which nothing else needs
pytestmark = pytest.mark.long
ROUNDS = 2
# a flag, or a mode of shipment, has a large part of all lines
OF_LARGE_GROUPS = {"q1", "q12"}


@pytest.fixture(scope="module")
def tpch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tpch]:
    """TPC-H, loaded and built. Each test takes the rounds of refreshes that follow."""
    for checkout in make_checkout(stage="up"):
        yield Tpch(checkout, tmp_path_factory.mktemp("refreshes"), rounds=2 * ROUNDS)


def test_queries_by_key_have_the_answers_that_duckdb_ships(tpch):
    for number in ORDER:
        assert tpch.answer(number) == tpch.duckdbs_answer(number), number


def insert_in_the_source(tpch: Tpch) -> None:
    tpch.insert("source", "public")
    tpch.checkout.extract_and_load()


def delete_in_the_source(tpch: Tpch) -> None:
    tpch.delete("source", "public")
    # marks what the source has no longer
    tpch.checkout.tidemark("reconcile", "--repair", *(f"public-{table}" for table in KEYS))


def insert_in_raw(tpch: Tpch) -> None:
    # without the loader's stamp
    tpch.insert("warehouse", "raw")


def delete_in_raw(tpch: Tpch) -> None:
    tpch.delete("warehouse", "raw")


@pytest.mark.parametrize(
    ("insert", "delete"),
    [(insert_in_the_source, delete_in_the_source), (insert_in_raw, delete_in_raw)],
    ids=["of the source, through the pipeline", "of raw, by hand"],
)
def test_after_each_refresh_queries_by_key_have_duckdbs_answers_and_equal_a_full_build(
    tpch: Tpch, insert: Callable[[Tpch], None], delete: Callable[[Tpch], None]
):
    for _ in range(ROUNDS):
        tpch.round += 1
        for function, refresh in (("rf1", insert), ("rf2", delete)):
            refresh(tpch)
            tpch.builds.append(tpch.build())
            for number in ORDER:
                assert tpch.answer(number) == tpch.duckdbs_answer(number, function), (number, function, tpch.round)
            full = tpch.build("--full-refresh")
            assert full.written == dict.fromkeys(full.in_full, (0, 0, 0))


def test_only_models_of_large_groups_are_computed_in_full_after_a_refresh(tpch):
    for build in tpch.builds:
        assert build.in_full.keys() <= OF_LARGE_GROUPS, build.in_full


def test_the_refreshes_change_every_answer(tpch):
    tpch.round = 2 * ROUNDS
    for number in ORDER:
        assert tpch.duckdbs_answer(number, "rf2") != tpch.duckdbs_answer(number), number
