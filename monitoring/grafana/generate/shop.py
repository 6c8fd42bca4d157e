"""Shop: what its owner looks at, from the marts. Replace it together with the demo shop's models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitoring.grafana.generate import board
from monitoring.grafana.generate.panels import bars, column, columns, graph, listing, tile
from monitoring.grafana.generate.queries import MARTS, Sql

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

# the shop has amounts without a currency
_MONEY = "short"
_NO_SALE = "No sale in this time range"
# a day's sales have its date, in UTC. Country and category are those that the dashboard's head selects.
_SALES = """\
from marts.mart_daily_sales
where ordered_on between $__timeFrom()::date and $__timeTo()::date
    and category = any(array[${category:sqlstring}]::text[]) and country = any(array[${country:sqlstring}]::text[])"""
_DAY = "ordered_on::timestamp at time zone 'UTC' as time"
_IN_FLIGHT = "from marts.fct_orders where order_status in ('pending', 'paid', 'shipped')"


def _one(select: str, source: str = _SALES) -> Sql:
    return Sql(MARTS, f"select {select}\n{source}")


def _per(name: str, select: str) -> Sql:
    return Sql(MARTS, f"select {name}, {select} as value\n{_SALES}\ngroup by {name}\norder by 2 desc")


def _by_day(select: str) -> Sql:
    return Sql(MARTS, f"select {_DAY}, {select}\n{_SALES}\ngroup by ordered_on\norder by ordered_on", series=True)


def _by_day_and(name: str, select: str) -> Sql:
    sql = f"select {_DAY}, {name} as metric, {select} as value\n{_SALES}\ngroup by 1, 2\norder by 1, 2"
    return Sql(MARTS, sql, series=True)


def _sold(title: str, query: Sql, about: str, unit: str = _MONEY, decimals: int | None = None) -> Builder[Panel]:
    return tile(title, query, MARTS, about=about, unit=unit, decimals=decimals, none=_NO_SALE)


def _figures() -> list[Builder[Panel]]:
    ratio = "sum(margin) / nullif(sum(revenue), 0) as ratio"
    return [
        _sold("Revenue", _one("sum(revenue) as revenue"), "Without cancelled orders and shipping."),
        _sold("Margin", _one("sum(margin) as margin"), "Revenue less the cost of the products."),
        _sold("Margin of revenue", _one(ratio), "Margin divided by revenue.", "percentunit", 1),
        _sold("Units sold", _one("sum(units) as units"), "Products that were sold.", "short"),
        tile(
            "Orders in flight",
            _one("count(*) as orders", _IN_FLIGHT),
            MARTS,
            about="Orders that are pending, paid or shipped now, whatever the time range.",
            unit="short",
        ),
        tile(
            "Data as of",
            _one("extract(epoch from now() - max(loaded_at)) as age", "from marts.fct_orders"),
            MARTS,
            about="How long ago the newest change of an order was loaded.",
            unit="s",
            none="No orders",
        ),
    ]


def _over_time() -> list[Builder[Panel]]:
    return [
        graph(
            "Revenue and margin by day",
            [_by_day("sum(revenue) as revenue, sum(margin) as margin")],
            MARTS,
            about="Days are in UTC, as in the marts.",
            unit=_MONEY,
            none=_NO_SALE,
            span=24,
        ),
        graph(
            "Revenue by day and category",
            [_by_day_and("category", "sum(revenue)")],
            MARTS,
            about="Each bar is a day.",
            unit=_MONEY,
            none=_NO_SALE,
            bars=True,
            stacked=True,
        ),
        graph(
            "Margin of revenue by day",
            [_by_day("sum(margin) / nullif(sum(revenue), 0) as margin")],
            MARTS,
            about="Margin divided by revenue, day by day.",
            unit="percentunit",
            none=_NO_SALE,
        ),
    ]


def _shares() -> list[Builder[Panel]]:
    def share(title: str, name: str, select: str) -> Builder[Panel]:
        query = _per(name, select)
        return bars(title, query, MARTS, about="In this time range.", unit=_MONEY, none=_NO_SALE)

    return [
        share("Revenue by category", "category", "sum(revenue)"),
        share("Revenue by country", "country", "sum(revenue)"),
        share("Margin by category", "category", "sum(margin)"),
    ]


def _orders() -> list[Builder[Panel]]:
    stages = bars(
        "Orders in flight, by stage",
        Sql(MARTS, f"select order_status, count(*) as value\n{_IN_FLIGHT}\ngroup by order_status\norder by 2 desc"),
        MARTS,
        about="Orders now, whatever the time range.",
        unit="short",
        none="No order is in flight",
    )
    oldest = listing(
        "Oldest orders in flight",
        [
            Sql(
                MARTS,
                f"""
                select order_id, order_status, ordered_at, extract(epoch from now() - ordered_at) as age, order_total
                {_IN_FLIGHT}
                order by ordered_at
                limit 50
                """,
            )
        ],
        MARTS,
        about="The 50 orders that have waited longest.",
        none="No order is in flight",
        span=16,
    )
    names = {
        "order_id": "Order",
        "order_status": "Stage",
        "ordered_at": "Ordered",
        "age": "Waiting for",
        "order_total": "Total",
    }
    oldest = column(columns(oldest, names), "Ordered", unit="dateTimeAsIso")
    oldest = column(oldest, "Waiting for", unit="s")
    return [stages, column(oldest, "Total", unit=_MONEY)]


def shop() -> Dashboard:
    """Return the dashboard."""
    category = board.column("category", MARTS, "select distinct category from marts.mart_daily_sales order by 1")
    country = board.column("country", MARTS, "select distinct country from marts.mart_daily_sales order by 1")
    return board.board(
        board.SHOP,
        "Tidemark: shop",
        "What the shop sold, and which orders are in flight.",
        [("", _figures()), ("By day", _over_time()), ("By category and country", _shares()), ("Orders", _orders())],
        variables=[
            board.several(category).label("Category"),
            board.several(country).label("Country"),
        ],
        since="now-90d",
        refresh="5m",
        # a day of the marts is a day in UTC
        timezone="utc",
    )
