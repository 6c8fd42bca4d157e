"""Models by key whose `changed_by` may be wrong, each of which is refused, or right after any change.

The SELECTs are of shapes in which it is hard to see by what columns an input is read, and which of them: names that
are another column's elsewhere, subqueries for a value, whole rows, windows and conditions above them. For each, the
entries that an author should write are changed at random: one is left out, names another column, or has fewer columns.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.integration.by_key_models import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

# tables of the package, which log old and new values of each column
TABLES = {
    "m_orders": ("order_id", "customer_id", "status", "amount", "ordered_on"),
    "m_items": ("item_id", "order_id", "product_id", "quantity"),
    "m_customers": ("customer_id", "country"),
    "m_products": ("product_id", "category"),
}
COPIES = [
    Model(
        *(name, columns, (columns[0],), True),
        f"select {', '.join(columns)} from {{{{ ref('{name.replace('m_', 'stg_')}') }}}}",
        {"unique_key": columns[0], "changed_by": [{"model": name.replace("m_", "stg_"), "key": columns[0]}]},
    )
    for name, columns in TABLES.items()
]
# how likely it is that an entry has `columns`, and that these have a column; that an entry is left out; that it is, or
# has another key
_TOLD, _LEFT_OUT, _OTHER_KEY = 0.7, 0.1, 0.25
# no entries are right for these
NEVER_RIGHT = {"mx_number_in", "mx_latest_of_country", "mx_found", "mx_none_in", "mx_shadowed"}
IDS = ("order_id", "customer_id", "item_id", "product_id", "next_id", "buyer")
BY_ORDER = {"model": "m_orders", "key": "order_id"}
ITEMS_BY_ORDER = {"model": "m_items", "key": "order_id"}
CUSTOMER = {"model": "m_customers", "key": "customer_id"}
PRODUCT = {"model": "m_products", "key": "product_id"}


@dataclass(frozen=True)
class Shape:
    """A SELECT, and entries of `changed_by` that may be right for it.

    columns: of this SELECT.
    """

    query: str
    columns: tuple[str, ...]
    entries: tuple[dict[str, Any], ...]
    key: str | tuple[str, ...] = "order_id"


SHAPES = {
    "latest": Shape(
        "select order_id, customer_id, country from (select orders.order_id, orders.customer_id, customers.country, "
        "row_number() over (partition by orders.order_id order by ordered_on desc, amount) as place "
        "from orders left join customers on customers.customer_id = orders.customer_id) as ranked where place = 1",
        ("order_id", "customer_id", "country"),
        (BY_ORDER, CUSTOMER),
    ),
    "latest_of_country": Shape(
        "select order_id, customer_id, country from (select orders.order_id, orders.customer_id, customers.country, "
        "row_number() over (partition by orders.order_id order by ordered_on desc) as place "
        "from orders left join customers on customers.customer_id = orders.customer_id) as ranked "
        "where place = 1 and country = 'DE'",
        ("order_id", "customer_id", "country"),
        (BY_ORDER, CUSTOMER),
    ),
    "best_of_items": Shape(
        "select order_id, product_id, category from (select items.order_id, items.product_id, category, "
        "row_number() over (partition by items.order_id order by category, items.product_id) as place "
        "from items left join products on products.product_id = items.product_id where items.order_id is not null "
        "and items.product_id is not null) as ranked where place = 1",
        ("order_id", "product_id", "category"),
        (ITEMS_BY_ORDER, PRODUCT | {"through": "m_items"}, PRODUCT),
    ),
    "value": Shape(
        "select order_id, customer_id, (select c.country from customers as c where c.customer_id = orders.customer_id) "
        "as country from orders",
        ("order_id", "customer_id", "country"),
        (BY_ORDER, CUSTOMER),
    ),
    "whole_row": Shape(
        "select order_id, orders.customer_id, to_jsonb(c) ->> 'country' as country from orders "
        "left join customers as c on c.customer_id = orders.customer_id",
        ("order_id", "customer_id", "country"),
        (BY_ORDER, CUSTOMER),
    ),
    "branches": Shape(
        "select order_id, sum(n) as n from (select order_id, customer_id as n from orders "
        "union all select order_id, quantity from items where product_id <> 2) as parts "
        "where order_id is not null group by order_id",
        ("order_id", "n"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "doubles": Shape(
        "select order_id, count(*) as n from (select order_id, status as what from orders "
        "union select order_id, quantity::text from items) as parts where order_id is not null group by order_id",
        ("order_id", "n"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "array": Shape(
        "select order_id, array(select quantity from items where items.order_id = orders.order_id "
        "order by product_id, item_id) as sold from orders",
        ("order_id", "sold"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "first": Shape(
        "select distinct on (order_id) order_id, quantity from items where order_id is not null "
        "order by order_id, product_id, item_id",
        ("order_id", "quantity"),
        (ITEMS_BY_ORDER,),
    ),
    "renamed": Shape(
        "select pairs.order_id, pairs.customer_id, pairs.buyer, pairs.next_id, customers.country from ("
        "select p.order_id, p.customer_id as customer_id, b.customer_id as buyer, p.order_id + 1 as next_id "
        "from orders as p left join orders as b on b.order_id = p.order_id + 1) as pairs "
        "left join customers on customers.customer_id = pairs.buyer",
        ("order_id", "customer_id", "buyer", "next_id", "country"),
        (BY_ORDER, {"model": "m_orders", "key": {"next_id": "order_id"}}, CUSTOMER | {"key": {"buyer": "customer_id"}}),
    ),
    "next": Shape(
        "select pairs.order_id, pairs.customer_id, pairs.next_id, n.status as next_status from ("
        "select order_id, customer_id, order_id + 1 as next_id from orders) as pairs "
        "left join orders as n on n.order_id = pairs.next_id",
        ("order_id", "customer_id", "next_id", "next_status"),
        (BY_ORDER, {"model": "m_orders", "key": {"next_id": "order_id"}}),
    ),
    "found": Shape(
        "select order_id, c.customer_id, c.country from orders left join customers as c using (customer_id)",
        ("order_id", "customer_id", "country"),
        (BY_ORDER, CUSTOMER),
    ),
    "chain": Shape(
        "select items.item_id, items.order_id, orders.customer_id, customers.country from items "
        "left join orders using (order_id) left join customers on customers.customer_id = orders.customer_id",
        ("item_id", "order_id", "customer_id", "country"),
        ({"model": "m_items", "key": "item_id"}, BY_ORDER, CUSTOMER),
        "item_id",
    ),
    "having": Shape(
        "select items.order_id, count(*) filter (where category = 'x') as n from items "
        "left join products on products.product_id = items.product_id where items.order_id is not null "
        "group by items.order_id having max(category) = 'y'",
        ("order_id", "n"),
        (ITEMS_BY_ORDER, PRODUCT | {"through": "m_items"}),
    ),
    "none_in": Shape(
        "select order_id, status from orders where order_id not in (select order_id from items)",
        ("order_id", "status"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "any_in": Shape(
        "select order_id, status from orders "
        "where status = 'a' or order_id in (select order_id from items where quantity > 1)",
        ("order_id", "status"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "whether": Shape(
        "select order_id, exists (select from items where items.order_id = orders.order_id and product_id = 1) as has "
        "from orders",
        ("order_id", "has"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "both_sides": Shape(
        "select order_id, status, n from orders full join (select order_id, count(product_id) as n from items "
        "where order_id is not null group by order_id) as t using (order_id)",
        ("order_id", "status", "n"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "lateral": Shape(
        "select orders.order_id, orders.customer_id, most.quantity, c.country from orders "
        "left join lateral "
        "(select max(quantity) as quantity from items where items.order_id = orders.order_id) as most on true "
        "left join lateral (select country from customers where customer_id = orders.customer_id) as c on true",
        ("order_id", "customer_id", "quantity", "country"),
        (BY_ORDER, ITEMS_BY_ORDER, CUSTOMER),
    ),
    "countries": Shape(
        "select c.country, count(*) as n from orders inner join customers as c on c.customer_id = orders.customer_id "
        "where c.country is not null group by c.country",
        ("country", "n"),
        (
            {"model": "m_customers", "key": "country"},
            {"model": "m_orders", "key": "customer_id", "through": "m_customers"},
        ),
        "country",
    ),
    "coalesced": Shape(
        "select order_id, coalesce(orders.customer_id, 1) as customer_id, country from orders "
        "left join customers on customers.customer_id = coalesce(orders.customer_id, 1) and orders.status <> 'b'",
        ("order_id", "customer_id", "country"),
        (BY_ORDER, CUSTOMER),
    ),
    "shadowed": Shape(
        "select order_id, customer_id, whose from (select o.order_id, o.order_id as customer_id, c.country as whose "
        "from orders as o left join customers as c on c.customer_id = o.customer_id) as orders",
        ("order_id", "customer_id", "whose"),
        (BY_ORDER, CUSTOMER),
    ),
    "in_a_union": Shape(
        "select o.order_id, o.customer_id, u.what from orders as o left join "
        "(select customer_id, country as what from customers "
        "where country = 'DE' union all select customer_id, 'other' from customers where country <> 'DE') as u "
        "on u.customer_id = o.customer_id",
        ("order_id", "customer_id", "what"),
        (BY_ORDER, CUSTOMER),
    ),
    "right_side_first": Shape(
        "select coalesce(o.order_id, t.order_id) as order_id, status, n from orders as o full join "
        "(select order_id, count(product_id) as n from items where order_id is not null group by order_id) as t "
        "on t.order_id = o.order_id",
        ("order_id", "status", "n"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "country_of_others": Shape(
        "select orders.order_id, orders.customer_id, c.country, n.n from orders "
        "left join customers as c on c.customer_id = orders.customer_id "
        "left join (select country, count(*) as n from customers group by country) as n on n.country = c.country",
        ("order_id", "customer_id", "country", "n"),
        (BY_ORDER, CUSTOMER, CUSTOMER | {"key": "country"}),
    ),
    "having_in": Shape(
        "select order_id, count(*) as n from items where order_id is not null group by order_id "
        "having order_id in (select order_id from orders where status = 'a')",
        ("order_id", "n"),
        (ITEMS_BY_ORDER, BY_ORDER),
    ),
    "number_in": Shape(
        "select order_id, status from orders "
        "where order_id::numeric in (select order_id from items where quantity > 1) "
        "or exists (select from items where items.order_id = orders.order_id and product_id = 1)",
        ("order_id", "status"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "grouped_by_a_value": Shape(
        "select o.order_id, (select max(i.quantity) from items as i where i.order_id = o.order_id) as most, "
        "count(*) as n from orders as o group by 1, 2",
        ("order_id", "most", "n"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "aliased": Shape(
        "select o.order_id, o.customer_id, c.country from orders as o left join customers as c (id, country) "
        "on c.id = o.customer_id",
        ("order_id", "customer_id", "country"),
        (BY_ORDER, CUSTOMER),
    ),
    "parts": Shape(
        "select orders.order_id, t.n, u.n as more from orders left join (select order_id, count(*) as n from items "
        "where order_id is not null group by 1) as t on t.order_id = orders.order_id left join (select order_id, "
        "sum(quantity) as n from items group by 1) as u on u.order_id = t.order_id",
        ("order_id", "n", "more"),
        (BY_ORDER, ITEMS_BY_ORDER),
    ),
    "one_in_another": Shape(
        "select order_id, customer_id, (select count(*) from items where items.order_id = orders.order_id and exists "
        "(select from products where products.product_id = items.product_id and category = 'x')) as n from orders",
        ("order_id", "customer_id", "n"),
        (BY_ORDER, ITEMS_BY_ORDER, PRODUCT | {"through": "m_items"}),
    ),
    "windowed": Shape(
        "select order_id, product_id, before from (select items.order_id, items.product_id, "
        "lag(category) over (partition by items.order_id order by item_id) as before, "
        "row_number() over (partition by items.order_id order by item_id desc) as place from items "
        "left join products on products.product_id = items.product_id where items.order_id is not null) as t "
        "where place = 1",
        ("order_id", "product_id", "before"),
        (ITEMS_BY_ORDER, PRODUCT | {"through": "m_items"}, PRODUCT),
    ),
    "of_all_ids": Shape(
        "select ids.id as customer_id, count(orders.order_id) as n from generate_series(1, 6) as ids (id) "
        "left join orders on orders.customer_id = ids.id group by 1",
        ("customer_id", "n"),
        ({"model": "m_orders", "key": "customer_id"},),
        "customer_id",
    ),
    "part_of_the_key": Shape(
        "select items.order_id, items.product_id, count(*) as n, max(category) as category from items "
        "left join products on products.product_id = items.product_id "
        "where items.order_id is not null and items.product_id is not null group by 1, 2",
        ("order_id", "product_id", "n", "category"),
        (ITEMS_BY_ORDER | {"key": {"order_id": "order_id", "product_id": "product_id"}}, PRODUCT),
        ("order_id", "product_id"),
    ),
    "cut": Shape(
        "select regexp_replace(status, '@.*', '') as status, count(*) as n "
        "from orders where status is not null group by 1",
        ("status", "n"),
        (BY_ORDER | {"key": {"status": "regexp_replace(status, '@.*', '')"}},),
        "status",
    ),
    "keyword": Shape(
        'select order_id as "user", count(*) as n, '
        "row_number() over (partition by order_id order by count(*)) as place "
        "from items where order_id is not null group by order_id",
        ("user", "n", "place"),
        (ITEMS_BY_ORDER | {"key": {"user": "order_id"}},),
        "user",
    ),
    "of_lists": Shape(
        "select a, b, count(*) as n from "
        "(select generate_series(1, quantity) as a, generate_series(product_id, 3) as b from items) as pairs "
        "where a is not null and b is not null group by a, b",
        ("a", "b", "n"),
        (
            {
                "model": "m_items",
                "key": {"a": "generate_series(1, quantity)", "b": "generate_series(product_id, 3)"},
            },
        ),
        ("a", "b"),
    ),
    "an_array": Shape(
        "select array[customer_id] as customers, count(*) as n from orders where customer_id is not null group by 1",
        ("customers", "n"),
        (BY_ORDER | {"key": {"customers": "array[customer_id]"}},),
        "customers",
    ),
}


def with_imports(query: str) -> str:
    """Return the SELECT with a CTE for each table that it reads, as authors write them."""
    read = [name for name in TABLES if re.search(rf"(from|join) {name.removeprefix('m_')}\b", query)]
    ctes = [f"{name.removeprefix('m_')} as (select * from {{{{ ref('{name}') }}}})" for name in read]
    return f"with {', '.join(ctes)}\n{query}"


def rightly_declared() -> list[Model]:
    """Return a model of each shape, with the entries as they are written here."""
    return [_model(name, shape, shape.entries) for name, shape in SHAPES.items()]


def _model(name: str, shape: Shape, entries: Sequence[dict[str, Any]]) -> Model:
    key = [shape.key] if isinstance(shape.key, str) else list(shape.key)
    settings = {"unique_key": key, "changed_by": list(entries)}
    return Model(f"mx_{name}", shape.columns, tuple(key), True, with_imports(shape.query), settings)


def misdeclared(seed: int) -> list[Model]:
    """Return a model of each shape, with entries that may be wrong."""
    random_ = random.Random(seed)
    models = []
    for name, shape in SHAPES.items():
        entries = [dict(each) for each in shape.entries]
        for entry in entries:
            columns = TABLES[entry["model"]]
            if random_.random() < _TOLD:
                entry["columns"] = [each for each in columns if random_.random() < _TOLD] or [columns[0]]
        what = random_.random()
        entry = random_.choice(entries)
        if what < _LEFT_OUT and len(entries) > 1:
            entries.remove(entry)
        elif what < _OTHER_KEY and shape.key in IDS:
            own = [each for each in shape.columns if each in IDS]
            others = [each for each in TABLES[entry["model"]] if each in IDS]
            entry["key"] = {random_.choice(own): random_.choice(others)}
        models.append(_model(name, shape, entries))
    return models
