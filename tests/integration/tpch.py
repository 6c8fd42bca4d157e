"""TPC-H in a project: its tables, its refresh functions, the models of tests/tpch, and DuckDB's answers."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from bench import data
from psycopg import sql

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.checkout import Checkout

FACTOR = 0.1
ORDER = {
    1: "l_returnflag, l_linestatus",
    3: "revenue desc, o_orderdate",
    6: "1",
    10: "revenue desc",
    12: "l_shipmode",
    18: "o_totalprice desc, o_orderdate",
}
# the tables that refreshes change
KEYS = {"orders": "o_orderkey", "lineitem": "l_orderkey"}
_WRITTEN = re.compile(r"model marts_tpch\.(\w+) .*\[(?:\d+ keys?: )?(\d+) new, (\d+) changed, (\d+) gone in")
_IN_FULL = re.compile(r'"marts_tpch"\."(\w+)" computes all of its rows: (.*)\.')


@dataclass(frozen=True)
class Build:
    """What a build did to the tables.

    written: how many rows of each it inserted, updated and deleted.
    in_full: the tables of which it computed all rows, and why.
    """

    written: dict[str, tuple[int, ...]]
    in_full: dict[str, str]


class Tpch:
    """The tables of TPC-H, loaded and built once, and as many rounds of its refresh functions as are asked for."""

    def __init__(self, checkout: Checkout, refreshes: Path, *, rounds: int) -> None:
        work = REPOSITORY / ".tidemark" / "bench"
        work.mkdir(parents=True, exist_ok=True)
        self.checkout = checkout
        self.round = 0
        self.builds: list[Build] = []
        self._answers = work / f"tpch-{FACTOR:g}"
        self._refreshes = refreshes
        dataset = data.prepare(checkout, scale=1, tpch=FACTOR, work=work)
        writer = REPOSITORY / "bench" / "tpch_refreshes.py"
        subprocess.run([data.tpch_python(work), writer, refreshes, str(FACTOR), str(rounds)], check=True)
        streams = {
            f"public-{table}": {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
            for table in dataset.keys
        }
        checkout.env |= {
            "TAP_POSTGRES__SELECT": json.dumps([f"{stream}.*" for stream in streams]),
            "TAP_POSTGRES__METADATA": json.dumps(streams),
        }
        with checkout.connect("source") as connection:
            for table in KEYS:
                connection.execute(f"alter table {table} alter updated_at set default clock_timestamp()")
        checkout.extract_and_load()
        with checkout.connect("warehouse") as connection:
            # q6_days looks up the lines of a day
            connection.execute("create index on raw.lineitem (l_shipdate)")
        self.build()

    def build(self, *arguments: str) -> Build:
        project = self.checkout.root / "tests" / "tpch"
        printed = self.checkout.build(*arguments, env={"DBT_PROJECT_DIR": str(project)})
        written = {name: tuple(map(int, counts)) for name, *counts in _WRITTEN.findall(printed)}
        return Build(written, dict(_IN_FULL.findall(printed)))

    def insert(self, side: str, schema: str) -> None:
        """Run RF1 of this round: insert its orders."""
        with self.checkout.connect(side) as connection, connection.transaction(), connection.cursor() as cursor:
            for table in KEYS:
                headings, rows = (self._refreshes / f"{table}.u{self.round}.csv").read_text().split("\n", 1)
                statement = sql.SQL("copy {} ({}) from stdin (format csv, delimiter '|')").format(
                    sql.Identifier(schema, table), sql.SQL(", ").join(map(sql.Identifier, headings.split("|")))
                )
                with cursor.copy(statement) as copy:
                    copy.write(rows)

    def delete(self, side: str, schema: str) -> None:
        """Run RF2 of this round: delete its orders and their lines."""
        _, *keys = (self._refreshes / f"delete.u{self.round}.csv").read_text().split()
        with self.checkout.connect(side) as connection, connection.transaction():
            for table, key in KEYS.items():
                statement = sql.SQL("delete from {} where {} = any(%s::bigint[])").format(
                    sql.Identifier(schema, table), sql.Identifier(key)
                )
                assert connection.execute(statement, [keys]).rowcount >= len(keys)

    def answer(self, number: int) -> list[tuple[object, ...]]:
        with self.checkout.connect("warehouse") as connection:
            rows = connection.execute(f"select * from marts_tpch.q{number} order by {ORDER[number]}").fetchall()
        return [tuple(map(_rounded, row)) for row in rows]

    def duckdbs_answer(self, number: int, after: str | None = None) -> list[tuple[object, ...]]:
        """Return the answer that DuckDB ships, or the one that it has after `rf1` or `rf2` of this round."""
        file = self._refreshes / f"answer-{number}.{after}-{self.round}.csv"
        if after is None:
            file = self._answers / f"answer-{number}.csv"
        _, *rows = csv.reader(file.read_text().splitlines(), delimiter="|")
        return [tuple(map(_rounded, row)) for row in rows]


def _rounded(value: object) -> object:
    """Round a value for comparison, because the number of digits of an average depends on the program."""
    try:
        return round(Decimal(str(value)), 4)
    except ArithmeticError:
        return str(value)
