"""Every query of the dashboards that is SQL, against a warehouse after real runs, as the login that Grafana has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dotenv import dotenv_values

from tests.monitoring.grafana import FILES, MARTS, RUN_RECORDS, Board, Query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

# the first test waits until the warehouse is filled
pytestmark = [pytest.mark.monitoring, pytest.mark.timeout(600)]
_LOGINS = {
    RUN_RECORDS: ("tidemark_watcher", "TIDEMARK_MONITOR_PASSWORD"),
    MARTS: ("tidemark_grafana", "TIDEMARK_REPORTER_PASSWORD"),
}
_BEFORE = {"now-24h": 1, "now-7d": 7, "now-90d": 90, "now-6h": 1 / 4}


@dataclass
class Warehouse:
    project: Checkout
    address: str

    def rows(self, login: str, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run it as Grafana does: in one statement, without parameters, in any time zone of the session."""
        role, variable = _LOGINS[login]
        password = dotenv_values(self.project.root / ".env")[variable]
        with psycopg.connect(
            self.address, user=role, password=password, options="-c TimeZone=Asia/Tokyo"
        ) as connection:
            cursor = connection.execute(sql.encode())
            return [column.name for column in cursor.description or []], cursor.fetchall()


@pytest.fixture(scope="module")
def warehouse(filled: Checkout) -> Iterator[Warehouse]:
    """The filled warehouse with a stream of any name."""
    with filled.connect("warehouse") as connection:
        connection.execute("""
            set role tidemark_loader;
            insert into raw._tidemark_runs (source, stream, run_id, table_name, started_at, outcome)
            select source, 'o''brien', run_id, table_name, started_at, outcome from raw._tidemark_runs limit 1
        """)
        yield Warehouse(filled, filled.urls["warehouse"])
        connection.execute("delete from raw._tidemark_runs where stream = 'o''brien'")


def run(warehouse: Warehouse, board: Board, query: Query) -> tuple[list[str], list[tuple[Any, ...]]]:
    end = datetime.now(UTC)
    begin = end - timedelta(days=_BEFORE[board.saved["time"]["from"]])
    return warehouse.rows(query.datasource, board.sql(query.target["rawSql"], begin, end))


def boards() -> list[str]:
    return [path.stem for path in FILES]


def opened(name: str, warehouse: Warehouse, **values: Any) -> Board:
    """Return a dashboard with its variables of SQL as Grafana fills them when it is opened."""
    board = Board.read(name)
    for variable in board.variables():
        if isinstance(variable["query"], str):
            _, rows = warehouse.rows(variable["datasource"]["uid"], variable["query"])
            everything = [value for (value,) in rows]
            board.values[variable["name"]] = everything if variable["multi"] else everything[0]
    # what tidemark_source_info says of the source
    board.values |= {"schema": "raw", **values}
    return board


def fits(unit: str, value: Any) -> bool:
    if unit == "dateTimeAsIso":
        return isinstance(value, datetime) and value.tzinfo is not None
    if not isinstance(value, int | float | Decimal):
        return False
    return 0 <= value <= 1 if unit == "percentunit" else value >= 0


def units(query: Query, names: list[str]) -> dict[str, str]:
    """Return the unit of each column that has one."""
    panel = query.panel
    titles = {
        name: title
        for change in panel.get("transformations", [])
        if change["id"] == "organize"
        for name, title in change["options"]["renameByName"].items()
    }
    own = {
        override["matcher"]["options"]: each["value"]
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "unit"
    }
    if panel["type"] == "table":
        return {name: own[title] for name in names if (title := titles.get(name, name)) in own}
    return {name: panel["fieldConfig"]["defaults"]["unit"] for name in names if name not in {"time", "metric"}}


@pytest.mark.parametrize("name", boards())
def test_every_panel_with_sql_has_rows_in_its_unit(warehouse, name):
    board = opened(name, warehouse, stream="public-customers")
    for query in board.queries(RUN_RECORDS, MARTS):
        names, rows = run(warehouse, board, query)
        assert rows, query.name
        if query.series:
            assert names[0] == "time"
            assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        checked = units(query, names)
        if query.panel["type"] == "bargauge":
            # its first column is the bar's name
            checked.pop(names[0])
        assert checked, query.name
        for column, unit in checked.items():
            values = [row[names.index(column)] for row in rows]
            known = [value for value in values if value is not None]
            # a stream that never failed has no code, and so on; a column of nulls alone shows nothing
            assert known, (query.name, column)
            assert all(fits(unit, value) for value in known), (query.name, column, known)


def test_a_failed_run_and_a_changed_column_are_marked_in_time(warehouse):
    board = opened("streams", warehouse, stream="public-customers")
    changes, failures = board.marks()
    names, rows = run(warehouse, board, changes)
    assert names == ["time", "text", "tags"]
    assert [row[1:] for row in rows] == [("nickname added → text", "schema")]
    board.values["stream"] = "public-products"
    names, rows = run(warehouse, board, failures)
    assert names == ["time", "text", "tags"]
    assert [tags for _, _, tags in rows] == ["column_retyped"]


def test_a_stream_of_any_name_is_found(warehouse):
    board = opened("streams", warehouse, stream="o'brien")
    (runs,) = (query for query in board.queries(RUN_RECORDS) if query.panel["title"] == "Runs")
    _, rows = run(warehouse, board, runs)
    assert len(rows) == 1


def test_a_shop_without_sales_says_so_and_raises_no_error(warehouse):
    board = opened("shop", warehouse, category=[], country=[])
    for query in board.queries(MARTS):
        run(warehouse, board, query)
