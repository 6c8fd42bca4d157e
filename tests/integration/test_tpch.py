"""TPC-H through the whole pipeline: DuckDB generates the tables and has the answers."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from bench import data

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.integration.conftest import Checkout

FACTOR = 0.1
ORDER = {1: "l_returnflag, l_linestatus", 3: "revenue desc, o_orderdate", 6: "1"}


# creates an environment for DuckDB, which nothing else needs
@pytest.mark.long
def test_queries_1_3_and_6_have_the_answers_that_duckdb_ships(checkout: Checkout):
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    checkout.tidemark("up")
    dataset = data.prepare(checkout, scale=1, tpch=FACTOR, work=work)
    streams = {
        f"public-{table}": {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
        for table in dataset.keys
    }
    checkout.extract_and_load(
        {
            "TAP_POSTGRES__SELECT": json.dumps([f"{stream}.*" for stream in streams]),
            "TAP_POSTGRES__METADATA": json.dumps(streams),
        }
    )
    checkout.env["TAP_POSTGRES__SELECT"] = json.dumps([f"{stream}.*" for stream in streams])
    project = {"DBT_PROJECT_DIR": str(REPOSITORY / "tests" / "tpch")}
    done = checkout.dbt("run", env=project)
    assert done.returncode == 0, done.stdout
    for number, order in ORDER.items():
        with checkout.connect("warehouse") as connection:
            cursor = connection.execute(f"select * from marts_tpch.q{number} order by {order}")
            headings, *answers = csv.reader(
                (work / f"tpch-{FACTOR:g}" / f"answer-{number}.csv").read_text().splitlines(), delimiter="|"
            )
            assert [column.name for column in cursor.description or ()] == headings
            assert [tuple(map(rounded, row)) for row in cursor] == [tuple(map(rounded, row)) for row in answers], number


def rounded(value: object) -> object:
    """Round a value for comparison, because the number of digits of an average depends on the program."""
    try:
        return round(Decimal(str(value)), 2)
    except ArithmeticError:
        return str(value)
