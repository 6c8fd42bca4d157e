"""Models that a build by key must refuse, for test_in_place_property.py: what is wrong, the model, and what is said.

Each is a model that would be accepted but for one thing, and whose rows would then go stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ORDERS, ITEMS, CUSTOMERS = ("{{ ref('stg_orders') }}", "{{ ref('stg_items') }}", "{{ ref('stg_customers') }}")
PRODUCTS = "{{ ref('stg_products') }}"
BY_ORDER = {"model": "stg_orders", "key": "order_id"}
ITEMS_BY_ORDER = {"model": "stg_items", "key": "order_id"}
BY_CUSTOMER = {"model": "stg_orders", "key": "customer_id"}
CUSTOMER = {"model": "stg_customers", "key": "customer_id"}
BY_MONTH = {"model": "stg_orders", "key": {"month": "date_trunc('year', ordered_on)::date"}}
# a table of the package, partitioned by day
LINES = {"model": "partitioned", "key": {"line_id": "order_id"}}
PARTS = "{{ ref('partitioned') }}"
PART = {"model": "partitioned", "key": "order_id", "columns": ["ordered_on"]}
PARTITIONED = (
    "{{ config(materialized='in_place_incremental', schema='marts', unique_key='order_id', "
    "partition_by={'column': 'ordered_on', 'grain': 'day'}) }}\n"
    "select order_id, amount, coalesce(ordered_on, '2026-01-01'::date) as ordered_on from {{ ref('stg_orders') }}\n"
)


@dataclass(frozen=True)
class Refused:
    """A model, and the words of its refusal.

    contract: the types of its columns, if it has a contract.
    """

    words: str
    query: str
    key: Any
    changed_by: list[dict[str, Any]]
    more: dict[str, Any] | None = None
    contract: dict[str, str] | None = None


REFUSED = {
    "a relation that is not listed": Refused(
        "reads raw.customers, whose changes would be missed",
        f"select o.order_id, o.customer_id, c.country from {ORDERS} o left join {CUSTOMERS} c using (customer_id)",
        "order_id",
        [BY_ORDER],
    ),
    "the clock": Refused(
        "depends on CURRENT_DATE",
        f"select order_id, current_date - ordered_on as age from {ORDERS}",
        "order_id",
        [BY_ORDER],
    ),
    "a window over other keys": Refused(
        "before a window function, whose partition by lacks the key",
        f"select order_id, lag(amount) over (order by order_id) as before from {ORDERS}",
        "order_id",
        [BY_ORDER],
    ),
    "a window over a key whose name begins another's": Refused(
        "before a window function, whose partition by lacks the key",
        "select order_id as a, customer_id as ab, "
        "row_number() over (partition by customer_id order by ordered_on, order_id) "
        f"as place from {ORDERS} where customer_id is not null",
        ["ab", "a"],
        [{"model": "stg_orders", "key": {"a": "order_id", "ab": "customer_id"}}],
    ),
    "a limit": Refused(
        "before LIMIT or OFFSET",
        f"select order_id, amount from {ORDERS} order by amount limit 3",
        "order_id",
        [BY_ORDER],
    ),
    "an offset": Refused(
        "before LIMIT or OFFSET",
        f"with o as (select * from {ORDERS} order by amount nulls last, order_id offset 2) "
        "select order_id, status from o",
        "order_id",
        [BY_ORDER],
    ),
    "distinct on a column that a condition makes constant": Refused(
        # PostgreSQL 15 calls it DISTINCT ON, later ones LIMIT
        "can't apply a condition on order_id before",
        f"with o as (select distinct on (status) * from {ORDERS} where status = 'a' order by status, amount, order_id) "
        "select order_id, amount from o",
        "order_id",
        [BY_ORDER],
    ),
    "distinct on another column": Refused(
        "before DISTINCT ON other columns",
        f"with o as (select distinct on (customer_id) * from {ORDERS} order by customer_id, order_id) "
        "select order_id, customer_id from o",
        "order_id",
        [BY_ORDER],
    ),
    "a total over all rows": Refused(
        "before a total over all rows, or another subquery for one value",
        f"select order_id, amount / (select sum(amount) from {ORDERS}) as share from {ORDERS}",
        "order_id",
        [BY_ORDER],
    ),
    "an inner join to a dimension": Refused(
        "stg_customers decides which rows there are",
        f"select o.order_id, o.customer_id, c.country from {ORDERS} o inner join {CUSTOMERS} c using (customer_id)",
        "order_id",
        [BY_ORDER, CUSTOMER],
    ),
    "a condition on a dimension": Refused(
        "stg_customers decides which rows there are",
        f"select o.order_id, o.customer_id from {ORDERS} o left join {CUSTOMERS} c using (customer_id) "
        "where coalesce(c.country, 'DE') = 'DE'",
        "order_id",
        [BY_ORDER, CUSTOMER],
    ),
    "an inner join to a partitioned table": Refused(
        "partitioned decides which rows there are",
        f"select o.order_id, o.order_id + 1 as line_id, l.amount from {ORDERS} o "
        "inner join {{ ref('partitioned') }} l on l.order_id = o.order_id + 1",
        "order_id",
        [BY_ORDER, LINES],
    ),
    "a condition on a partitioned table": Refused(
        "partitioned decides which rows there are",
        f"select o.order_id, o.order_id + 1 as line_id from {ORDERS} o "
        "left join {{ ref('partitioned') }} l on l.order_id = o.order_id + 1 where coalesce(l.amount, 1) > 0",
        "order_id",
        [BY_ORDER, LINES],
    ),
    "a second reading, of the next row": Refused(
        "by order_id = orders.order_id + 1, and no entry of changed_by for it has that",
        f"select o.order_id, n.amount from {ORDERS} o left join {ORDERS} n on n.order_id = o.order_id + 1",
        "order_id",
        [BY_ORDER],
    ),
    "a second reading, by another column": Refused(
        "by customer_id = orders.customer_id, and no entry of changed_by for it has that, so changes would be missed. "
        "Add {'model': 'stg_orders', 'key': 'customer_id'}.",
        f"with c as (select customer_id, count(*) as n from {ORDERS} group by 1) "
        f"select o.order_id, o.customer_id, c.n from {ORDERS} o left join c on c.customer_id = o.customer_id",
        "order_id",
        [BY_ORDER],
    ),
    "a second reading, of a CTE": Refused(
        "and no entry of changed_by for it has that",
        f"with o as (select * from {ORDERS}), c as (select customer_id, max(amount) as most from o group by 1) "
        "select o.order_id, o.customer_id, c.most from o left join c on c.customer_id = o.customer_id",
        "order_id",
        [BY_ORDER],
    ),
    "a second reading, by what its own column is not": Refused(
        "by customer_id = orders.customer_id + 1, and no entry of changed_by for it has that",
        f"select o.order_id, o.customer_id, c.country from {ORDERS} o "
        f"left join {CUSTOMERS} c on c.customer_id = o.customer_id + 1",
        "order_id",
        [BY_ORDER, CUSTOMER],
    ),
    "a reading by no equation": Refused(
        "by no equation that a build could follow",
        f"select o.order_id, (select count(*) from {ITEMS} i where i.order_id < o.order_id) as before from {ORDERS} o",
        "order_id",
        [BY_ORDER, ITEMS_BY_ORDER],
    ),
    "an expression that is not the SELECT's": Refused(
        "and no entry of changed_by for it has that",
        f"select date_trunc('month', ordered_on)::date as month, count(*) as n from {ORDERS} "
        "where ordered_on is not null group by 1",
        "month",
        [BY_MONTH],
    ),
    "through rows of another column": Refused(
        "by product_id = items.product_id + 1, and no entry of changed_by for it has that",
        f"select i.order_id, max(p.category) as category from {ITEMS} i "
        "left join {{ ref('stg_products') }} p on p.product_id = i.product_id + 1 "
        "where i.order_id is not null group by 1",
        "order_id",
        [ITEMS_BY_ORDER, {"model": "stg_products", "key": "product_id", "through": "stg_items"}],
    ),
    "a condition above a window": Refused(
        "stg_customers decides which rows there are",
        "select order_id, customer_id, country from (select o.order_id, o.customer_id, c.country, "
        f"row_number() over (partition by o.order_id order by o.ordered_on desc) as place from {ORDERS} o "
        f"left join {CUSTOMERS} c using (customer_id)) as ranked where place = 1 and country = 'DE'",
        "order_id",
        [BY_ORDER, CUSTOMER],
    ),
    "a window over a dimension, of which some rows come out": Refused(
        "a window function gives values of stg_products to other rows than those that hold product_id",
        "select order_id, product_id, before from (select i.order_id, i.product_id, "
        "lag(p.category) over (partition by i.order_id order by i.item_id) as before, "
        "row_number() over (partition by i.order_id order by i.item_id desc) as place "
        f"from {ITEMS} i left join {PRODUCTS} p using (product_id) where i.order_id is not null) as t where place = 1",
        "order_id",
        [ITEMS_BY_ORDER, {"model": "stg_products", "key": "product_id"}],
    ),
    "an order of rows by a dimension": Refused(
        "stg_products decides which rows there are",
        "select order_id, product_id, category from (select i.order_id, i.product_id, p.category, "
        f"row_number() over (partition by i.order_id order by p.category) as place from {ITEMS} i "
        f"left join {PRODUCTS} p using (product_id) where i.order_id is not null) as ranked where place = 1",
        "order_id",
        [ITEMS_BY_ORDER, {"model": "stg_products", "key": "product_id"}],
    ),
    "a column that is called like another below": Refused(
        "Add {'model': 'stg_customers', 'key': {'buyer': 'customer_id'}}",
        "select pairs.order_id, pairs.customer_id, pairs.buyer, pairs.next_id, c.country from "
        "(select p.order_id, p.customer_id, b.customer_id as buyer, p.order_id + 1 as next_id "
        f"from {ORDERS} p left join {ORDERS} b on b.order_id = p.order_id + 1) as pairs "
        f"left join {CUSTOMERS} c on c.customer_id = pairs.buyer",
        "order_id",
        [BY_ORDER, {"model": "stg_orders", "key": {"next_id": "order_id"}}, CUSTOMER],
    ),
    "a column of the side that may be missing": Refused(
        "customer_id, by which rows are found when stg_customers changes, comes from stg_customers itself",
        f"select o.order_id, c.customer_id, c.country from {ORDERS} o left join {CUSTOMERS} c "
        "on c.customer_id = o.customer_id",
        "order_id",
        [BY_ORDER, CUSTOMER],
    ),
    "not in, where null matters to all rows": Refused(
        "by no equation that a build could follow",
        f"select order_id from {ORDERS} where order_id not in (select order_id from {ITEMS})",
        "order_id",
        [BY_ORDER, ITEMS_BY_ORDER],
    ),
    "counts that are equal by chance": Refused(
        "by no equation that a build could follow",
        f"with a as (select order_id, count(*) as n from {ORDERS} group by 1), "
        f"b as (select product_id, count(*) as n from {ITEMS} group by 1) "
        "select a.order_id, max(b.product_id) as most from a left join b on b.n = a.n group by 1",
        "order_id",
        [BY_ORDER, ITEMS_BY_ORDER],
    ),
    "a column that a subquery for a value reads": Refused(
        "reads amount of partitioned, whose changes would be missed",
        f"select o.order_id, (select p.amount from {PARTS} p where p.order_id = o.order_id) as amount from {ORDERS} o",
        "order_id",
        [BY_ORDER, PART],
    ),
    "a column of a whole row": Refused(
        "reads amount of partitioned, whose changes would be missed",
        f"select o.order_id, to_jsonb(p) ->> 'amount' as amount from {ORDERS} o left join {PARTS} p using (order_id)",
        "order_id",
        [BY_ORDER, PART],
    ),
    "a column that UNION compares": Refused(
        "reads amount of partitioned, whose changes would be missed",
        f"select order_id, count(*) as n from (select order_id, amount from {ORDERS} union "
        f"select order_id, amount from {PARTS}) as parts where order_id is not null group by 1",
        "order_id",
        [BY_ORDER, PART],
    ),
    "a column that rows are sorted by": Refused(
        "reads amount of partitioned, whose changes would be missed",
        f"select distinct on (order_id) order_id, ordered_on from {PARTS} order by order_id, amount",
        "order_id",
        [PART],
    ),
    "columns that only an entry by another column has": Refused(
        "reads amount of partitioned, whose changes would be missed",
        f"select p.order_id, p.ordered_on, t.n from {PARTS} p left join (select ordered_on, count(amount) as n "
        f"from {PARTS} group by 1) as t on t.ordered_on = p.ordered_on where p.amount > 1",
        "order_id",
        [PART, {"model": "partitioned", "key": "ordered_on", "columns": ["amount"]}],
    ),
    "an equation of a side that may be missing": Refused(
        "and no entry of changed_by for it has that",
        f"select o.order_id, o.customer_id as buyer, c.customer_id as known, p.category from {ORDERS} o "
        f"left join {CUSTOMERS} c on c.customer_id = o.customer_id "
        f"left join {PRODUCTS} p on p.product_id = o.customer_id",
        "order_id",
        [
            BY_ORDER,
            {"model": "stg_customers", "key": {"buyer": "customer_id"}},
            {"model": "stg_products", "key": {"known": "product_id"}},
        ],
    ),
    "an equation below a total": Refused(
        "by customer_id = orders.customer_id, and no entry of changed_by for it has that",
        f"select o.order_id, o.customer_id, t.n, c.country from {ORDERS} o cross join lateral (select count(*) as n "
        f"from {ITEMS} i where i.order_id = o.order_id and i.order_id = o.customer_id) t "
        f"left join {CUSTOMERS} c on c.customer_id = o.customer_id",
        "order_id",
        [BY_ORDER, ITEMS_BY_ORDER, {"model": "stg_customers", "key": {"order_id": "customer_id"}}],
    ),
    "a constant of a side that may be missing": Refused(
        "stg_products (products) by no equation",
        f"select o.order_id, o.customer_id, c.one as k, p.category from {ORDERS} o left join "
        f"(select customer_id, 1::bigint as one from {CUSTOMERS}) as c on c.customer_id = o.customer_id "
        f"left join {PRODUCTS} p on p.product_id = 1",
        "order_id",
        [BY_ORDER, CUSTOMER, {"model": "stg_products", "key": {"k": "product_id"}}],
    ),
    "a key that stands for a side that may be missing": Refused(
        "reads stg_customers (customers)",
        "select coalesce(c.country, '?') as country, count(*) as n from generate_series(1, 6) as g (id) "
        f"left join {CUSTOMERS} c on c.customer_id = g.id group by 1",
        "country",
        [{"model": "stg_customers", "key": {"country": "coalesce(country, '?')"}}],
    ),
    "a key that a function makes of a side that may be missing": Refused(
        "reads stg_customers (customers)",
        "select md5(concat_ws('|', c.country, '?')) as k, count(*) as n from generate_series(1, 6) as g (id) "
        f"left join {CUSTOMERS} c on c.customer_id = g.id group by 1",
        "k",
        [{"model": "stg_customers", "key": {"k": "md5(concat_ws('|', country, '?'))"}}],
    ),
    "a key that an operator makes of a side that may be missing": Refused(
        "reads stg_customers (customers)",
        "select array[0] || c.customer_id as k, count(*) as n from generate_series(1, 6) as g (id) "
        f"left join {CUSTOMERS} c on c.customer_id = g.id group by 1",
        "k",
        [{"model": "stg_customers", "key": {"k": "array[0] || customer_id"}}],
    ),
    "a list in which null may be sought": Refused(
        "write exists",
        f"select o.order_id, o.customer_id, o.customer_id in (select customer_id from {CUSTOMERS} "
        f"where country = 'DE' and customer_id is not null) as german from {ORDERS} o",
        "order_id",
        [BY_ORDER, CUSTOMER],
    ),
    "a column alias that is another column's name": Refused(
        "reads amount of partitioned, whose changes would be missed",
        f"select p.order_id, p.ordered_on from {PARTS} as p (order_id, ordered_on, more)",
        "order_id",
        [PART],
    ),
    "texts with and without blanks at the end": Refused(
        "by no equation that a build could follow",
        f"select o.order_id, o.status, c.n from {ORDERS} o left join "
        f"(select country::char(3) as country, count(*) as n from {CUSTOMERS} group by 1) as c "
        "on c.country = o.status::char(3)",
        "order_id",
        [BY_ORDER, {"model": "stg_customers", "key": {"status": "country"}}],
    ),
    "another division": Refused(
        "and no entry of changed_by for it has that",
        f"select order_id::numeric / customer_id as k, count(*) as n from {ORDERS} where customer_id > 0 group by 1",
        "k",
        [{"model": "stg_orders", "key": {"k": "order_id / nullif(customer_id, 0)"}}],
    ),
    "a type that rounds a column by which rows are found": Refused(
        "the key amount is numeric in the SELECT and numeric(10,0) in the contract, which rounds or cuts values",
        f"select o.order_id, o.amount * 1.0 as amount, p.n from {ORDERS} o left join "
        f"(select amount, count(*) as n from {PARTS} group by 1) as p on p.amount = o.amount * 1.0",
        "order_id",
        [BY_ORDER, {"model": "partitioned", "key": "amount"}],
        contract={"order_id": "bigint", "amount": "numeric(10, 0)", "n": "bigint"},
    ),
    "a part of the key": Refused(
        "stg_orders gives customer_id, a part of customer_id, status",
        f"select customer_id, status, count(*) as n from {ORDERS} "
        "where customer_id is not null and status is not null group by 1, 2",
        ["customer_id", "status"],
        [BY_CUSTOMER],
    ),
    "a type that rounds the key": Refused(
        "the key amount is numeric in the SELECT and numeric(10,1) in the contract, which rounds or cuts values",
        f"select amount * 1.0 as amount, count(*) as n from {ORDERS} where amount is not null group by 1",
        "amount",
        [{"model": "stg_orders", "key": {"amount": "amount * 1.0"}}],
        contract={"amount": "numeric(10, 1)", "n": "bigint"},
    ),
    "two lists at two levels": Refused(
        "by set-returning functions that it calls at several levels",
        "select a, b, count(*) as n from (select a, generate_series(0, quantity) as b from (select quantity, "
        f"generate_series(0, quantity) as a from {ITEMS}) as inner_) as outer_ group by a, b",
        ["a", "b"],
        [{"model": "stg_items", "key": {"a": "generate_series(0, quantity)", "b": "generate_series(0, quantity)"}}],
    ),
    "a list beside a longer one": Refused(
        "or beside others where a part of the key may be null",
        "select a, count(b) as n from (select generate_series(1, quantity) as a, generate_series(1, product_id) as b "
        f"from {ITEMS}) as pairs group by a",
        "a",
        [{"model": "stg_items", "key": {"a": "generate_series(1, quantity)"}}],
        {"null_keys": ["a"]},
    ),
}
