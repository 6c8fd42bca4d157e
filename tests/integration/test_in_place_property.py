"""Models by key equal their own SELECTs after whatever happens to what they read; what can't be so is refused.

hypothesis draws models of the shapes in by_key_models.py, and what happens to the shop below them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from psycopg import errors

from tests.integration.by_key_models import (
    Model,
    aggregate,
    dimension_joined,
    model_sets,
    siblings,
    through,
    totals_joined,
)
from tests.integration.by_key_shop import LOADER, TABLES, Shop
from tests.integration.misdeclared_models import COPIES, NEVER_RIGHT, misdeclared, rightly_declared
from tests.integration.refused_models import REFUSED
from tests.integration.stages import make_checkout
from tests.servers import INSTALLATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXAMPLES = int(os.environ.get("EXAMPLES", os.environ.get("CRASHES", "4")))
SHORT = (dimension_joined, aggregate, totals_joined, through, siblings)
# what may happen before a build
STEPS = ("changes", "changes", "changes", "late commit", "killed build", "a part", "full refresh")


@pytest.fixture(
    scope="module",
    params=["embedded", *(pytest.param(each, marks=pytest.mark.long) for each in INSTALLATIONS if each != "embedded")],
)
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    for checkout in make_checkout(request.param, stage="up"):
        yield Shop(checkout)


def assert_right(shop: Shop, printed: str) -> None:
    differing = shop.differing()
    queries = {model.name: model.file for model in shop.models if model.name in differing}
    assert not differing, (differing, queries, printed)


def take(shop: Shop, step: str) -> None:
    """Let one thing happen, and build."""
    with shop.connect() as connection:
        if step == "late commit":
            with shop.connect() as loader, loader.transaction():
                note(f"late: {shop.change(loader, LOADER)}")
                shop.build()
        elif step == "killed build":
            for _ in range(3):
                note(shop.change(connection))
            shop.killed_build()
        elif step == "a part":
            note(shop.change(connection))
            shop.build("--select", f"+{shop.draw.choice(shop.models).name}")
        else:
            for _ in range(shop.draw.randint(1, 4)):
                note(shop.change(connection))
    printed = shop.build(*(["--full-refresh"] if step == "full refresh" else []))
    assert_right(shop, printed)


def run(shop: Shop, seed: int, models: Sequence[Model], steps: Sequence[str]) -> None:
    """Build models, let the steps happen, and compare after each."""
    shop.begin(seed, models)
    assert_right(shop, shop.build())
    for step in steps:
        take(shop, step)
    printed = shop.build()
    assert shop.evaluated(printed) == {model.name: 0 for model in models}, printed


HOW: dict[str, Any] = {
    "deadline": None,
    "database": None,
    # an example takes many builds, so a failing one is printed and not made smaller
    "phases": (Phase.explicit, Phase.generate),
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}


# the first that hypothesis draws has a model of each of these shapes, and most read another one
@settings(max_examples=1, derandomize=True, **HOW)
@given(models=model_sets(SHORT))
def test_models_of_several_shapes_equal_their_selects_after_a_late_commit(shop, models):
    run(shop, 1, models, ["late commit"])


@pytest.mark.long
@pytest.mark.timeout(7200)
@settings(max_examples=EXAMPLES, **HOW)
@given(
    seed=st.integers(0, 10_000),
    models=model_sets(),
    steps=st.lists(st.sampled_from(STEPS), min_size=3, max_size=5),
)
def test_generated_models_equal_their_selects_after_whatever_happens(shop, seed, models, steps):
    run(shop, seed, models, steps)


def run_misdeclared(shop: Shop, seed: int, columns: Sequence[tuple[str, str]], *, every: int = 1) -> None:
    """Build models some of which are refused; compare the others after each column or a table's rows changed alone."""
    models = misdeclared(seed)[::every]
    shop.begin(seed, [*COPIES, *models])
    refused = shop.refused()
    assert not {name for (name,) in shop.checkout.rows("warehouse", "select relname from pg_class")} & set(refused)
    shop.keep([*COPIES, *(model for model in models if model.name not in refused)])
    for table, column in columns:
        with shop.connect() as connection:
            if column == next(iter(TABLES[table])):
                shop.change_rows(connection, table)
            else:
                shop.change_column(connection, table, column)
        assert_right(shop, f"{shop.build()}\nchanged: {table}.{column}\nrefused: {refused}")


@pytest.mark.long
def test_models_with_wrong_entries_are_refused_or_right_after_changes(shop):
    run_misdeclared(shop, 4, [("customers", "country"), ("items", "product_id")], every=4)


@pytest.mark.long
@pytest.mark.timeout(7200)
@settings(max_examples=EXAMPLES, **HOW)
@given(
    seed=st.integers(0, 10_000),
    columns=st.permutations([(table, column) for table, names in TABLES.items() for column in names] * 2),
)
def test_models_with_any_wrong_entries_are_refused_or_right_after_changes(shop, seed, columns):
    run_misdeclared(shop, seed, columns)


@pytest.mark.long
def test_shapes_with_right_entries_are_taken(shop):
    shop.begin(1, [*COPIES, *rightly_declared()])
    refused = shop.refused()
    assert set(refused) == NEVER_RIGHT, refused


PRODUCTS = Model(
    *("m_products", ("product_id", "category"), ("product_id",), True),
    "select product_id, category from {{ ref('stg_products') }}",
    {"unique_key": "product_id", "changed_by": [{"model": "stg_products", "key": "product_id"}]},
)
CATEGORIES = Model(
    *("m_categories", ("category", "n"), ("category",), True),
    "select category, count(product_id) as n from {{ ref('m_products') }} where category is not null group by category",
    {"unique_key": "category", "changed_by": [{"model": "m_products", "key": "category", "columns": ["product_id"]}]},
)


@pytest.mark.long
def test_a_row_that_moves_to_another_key_changes_both_if_the_entry_names_other_columns(shop):
    shop.begin(3, [PRODUCTS, CATEGORIES])
    shop.build()
    with shop.connect() as connection:
        connection.execute("update raw.products set category = 'moved' where product_id = 1")
    printed = shop.build()
    assert_right(shop, printed)
    assert shop.evaluated(printed)["m_categories"], "it did not compute all of its rows"


# equal numbers with other digits
DIGITS = "case when status = 'a' then order_id::numeric(5, 1) else order_id::numeric(5, 2) end"
OF_DIGITS = Model(
    *("m_digits", ("id", "amount"), ("id",), True),
    f"select {DIGITS} as id, amount from {{{{ ref('stg_orders') }}}}",
    {"unique_key": "id", "changed_by": [{"model": "stg_orders", "key": {"id": DIGITS}}]},
)


@pytest.mark.long
def test_a_key_that_changes_to_an_equal_value_is_written(shop):
    shop.begin(2, [OF_DIGITS])
    shop.build()
    with shop.connect() as connection:
        connection.execute("update raw.orders set status = case when status = 'a' then 'b' else 'a' end")
    assert_right(shop, shop.build())
    printed = shop.build("--full-refresh")
    assert "[0 new, 0 changed, 0 gone in" in printed, printed


RATES = Model(
    *("m_rates", ("order_id", "rate"), ("order_id",), True),
    "select order_id, case status when 'a' then 1.0 else 1.00 end as rate from {{ ref('stg_orders') }}",
    {"unique_key": "order_id", "changed_by": [{"model": "stg_orders", "key": "order_id"}]},
)
SHOWN = Model(
    *("m_shown", ("order_id", "shown"), ("order_id",), True),
    "select order_id, rate::text as shown from {{ ref('m_rates') }}",
    {"unique_key": "order_id", "changed_by": [{"model": "m_rates", "key": "order_id", "columns": ["rate"]}]},
)
CALLED = Model(
    *("m_called", ("order_id", "doubled"), ("order_id",), True),
    "select order_id, staging.calls(order_id) as doubled from {{ ref('stg_orders') }}",
    {"unique_key": "order_id", "changed_by": [{"model": "stg_orders", "key": "order_id"}]},
)
FUNCTION = "create or replace function staging.{} returns bigint immutable language {} as $$ {} $$"


@pytest.mark.long
def test_a_value_with_other_digits_and_a_function_below_a_function_reach_the_models(shop):
    shop.begin(4, [RATES, SHOWN, CALLED])
    with shop.checkout.connect("warehouse") as connection:
        connection.execute("create schema staging authorization tidemark_transformer; set role tidemark_transformer")
        connection.execute(FUNCTION.format("called(a bigint)", "sql", "select a * 2"))
        connection.execute(FUNCTION.format("calls(a bigint)", "plpgsql", "begin return staging.called(a); end"))
    for _ in range(2):
        shop.build()
    with shop.connect() as connection:
        connection.execute("update raw.orders set status = case when status = 'a' then 'b' else 'a' end")
    printed = shop.build()
    assert_right(shop, printed)
    assert shop.evaluated(printed)["m_called"] is not None, "it computed all of its rows"
    with shop.checkout.connect("warehouse") as connection:
        connection.execute("set role tidemark_transformer")
        connection.execute(FUNCTION.format("called(a bigint)", "sql", "select a * 3"))
    assert_right(shop, shop.build())


# a collation by which a and A are equal
NO_CASE = "collate staging.no_case"
BY_COUNTRY = Model(
    *("m_by_country", ("country", "n"), ("country",), True),
    f"select country {NO_CASE} as country, count(*) as n from {{{{ ref('stg_customers') }}}} "
    "where country is not null group by 1",
    {
        "unique_key": "country",
        "changed_by": [{"model": "stg_customers", "key": {"country": f"country {NO_CASE}"}}],
    },
)
OF_COUNTRY = Model(
    *("m_of_country", ("order_id", "status", "n"), ("order_id",), True),
    f"select o.order_id, o.status {NO_CASE} as status, c.n from {{{{ ref('stg_orders') }}}} as o "
    f"left join {{{{ ref('m_by_country') }}}} as c on c.country = o.status {NO_CASE}",
    {
        "unique_key": "order_id",
        "changed_by": [
            {"model": "stg_orders", "key": "order_id"},
            {"model": "m_by_country", "key": {"status": "country"}},
        ],
    },
)


@pytest.mark.long
def test_texts_that_a_collation_calls_equal_reach_the_models(shop):
    shop.begin(6, [BY_COUNTRY, OF_COUNTRY])
    with shop.checkout.connect("warehouse") as connection:
        connection.execute("create schema staging authorization tidemark_transformer; set role tidemark_transformer")
        try:
            connection.execute(
                "create collation staging.no_case (provider=icu, locale='und-u-ks-level2', deterministic=false)"
            )
        except errors.FeatureNotSupported:
            pytest.skip("needs a PostgreSQL with ICU")
    with shop.connect() as connection:
        connection.execute("update raw.customers set country = (array['a', 'A', 'b', 'B', 'c'])[customer_id]")
        connection.execute("update raw.orders set status = (array['a', 'A', 'b', 'B', null])[1 + order_id % 5]")
    assert_right(shop, shop.build())
    for change in (
        "update raw.customers set country = lower(country) where customer_id < 4",
        "update raw.customers set country = 'b' where customer_id = 1",
        "update raw.orders set status = upper(status)",
        "update raw.customers set country = 'a'",
    ):
        with shop.connect() as connection:
            connection.execute(change)
        assert_right(shop, shop.build())


OPEN = Model(
    *("m_open", ("order_id", "customer_id", "status"), ("order_id",), False),
    "select order_id, customer_id, status from {{ ref('stg_orders') }} where customer_id not in "
    "(select customer_id from {{ ref('stg_customers') }} where country = 'DE')",
    {"materialized": "in_place_view"},
)
OF_OPEN = Model(
    *("m_of_open", ("order_id", "status"), ("order_id",), True),
    "select order_id, status from {{ ref('m_open') }}",
    {"unique_key": "order_id", "changed_by": [{"model": "m_open", "key": "order_id"}]},
)


@pytest.mark.long
def test_a_view_whose_condition_reads_another_table_is_followed(shop):
    shop.begin(7, [OPEN, OF_OPEN])
    assert_right(shop, shop.build())
    for _ in range(3):
        with shop.connect() as connection:
            shop.change_column(connection, "customers", "country")
        assert_right(shop, shop.build())


SUMMARY = Model(
    *("m_summary", ("what", "n"), ("what",), True),
    "select 'orders' as what, count(*) as n from {{ ref('stg_orders') }}",
    {"unique_key": "what", "changed_by": [{"model": "stg_orders", "key": {"what": "'orders'"}}]},
)


@pytest.mark.long
def test_a_key_that_is_a_constant_is_followed(shop):
    shop.begin(8, [SUMMARY])
    for _ in range(2):
        shop.build()
    for change in ("delete from raw.orders where order_id = 1", "update raw.orders set _sdc_deleted_at = now()"):
        with shop.connect() as connection:
            connection.execute(change)
        printed = shop.build()
        assert_right(shop, printed)
        assert shop.evaluated(printed) == {"m_summary": 1}, printed


# keys whose types hold less than the columns of an input that they are joined with
NARROW = [
    Model(
        *("m_quantities", ("quantity", "n"), ("quantity",), True),
        "select quantity, (select count(*) from {{ ref('stg_orders') }} as o where o.order_id = i.quantity) as n "
        "from (select distinct quantity from {{ ref('stg_items') }} where quantity is not null) as i",
        {
            "unique_key": "quantity",
            "changed_by": [
                {"model": "stg_items", "key": "quantity"},
                {"model": "stg_orders", "key": {"quantity": "order_id"}},
            ],
        },
    ),
    Model(
        *("m_letters", ("letter", "n"), ("letter",), True),
        "select letter, (select count(*) from {{ ref('stg_customers') }} as c where c.country = letter) as n "
        "from (select distinct status::varchar(1) as letter from {{ ref('stg_orders') }} where status <> '') as o",
        {
            "unique_key": "letter",
            "changed_by": [
                {"model": "stg_orders", "key": {"letter": "status::varchar(1)"}},
                {"model": "stg_customers", "key": {"letter": "country"}},
            ],
        },
    ),
]


@pytest.mark.long
def test_a_value_that_the_type_of_the_key_can_not_hold_stops_no_build(shop):
    shop.begin(9, NARROW)
    for _ in range(2):
        shop.build()
    for change in (
        "update raw.orders set order_id = 5000000000 where order_id = 1; update raw.customers set country = 'long'",
        "update raw.orders set order_id = 1 where order_id = 5000000000; update raw.customers set country = 'a'",
    ):
        with shop.connect() as connection:
            connection.execute(change)
        printed = shop.build()
        assert_right(shop, printed)
        assert None not in shop.evaluated(printed).values(), printed


OF_SOURCE = Model(
    *("m_of_source", ("order_id", "amount"), ("order_id",), True),
    "select order_id, amount from {{ source('shop', 'orders') }}",
    {"unique_key": "order_id", "changed_by": [{"model": "shop.orders", "key": "order_id"}]},
)


@pytest.mark.long
def test_a_model_can_read_a_source_without_a_view_between(shop):
    shop.begin(5, [OF_SOURCE])
    for _ in range(2):
        shop.build()
    with shop.connect() as connection:
        connection.execute(
            "update raw.orders set amount = 99 where order_id = 1; delete from raw.orders where order_id = 2"
        )
    assert shop.evaluated(shop.build()) == {"m_of_source": 2}
    table, truth = "select order_id, amount from marts.m_of_source", "select order_id, amount from raw.orders"
    assert sorted(shop.checkout.rows("warehouse", table)) == sorted(shop.checkout.rows("warehouse", truth))


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.long)], ids=["some", "all"])
def test_models_that_would_go_stale_are_refused_before_anything_is_built(shop, every):
    which = [*REFUSED][::every]
    said = shop.refusals(which)
    for what in which:
        assert REFUSED[what].words in said[what], (what, said[what])
        assert said[what].endswith("Nothing was changed."), what


@pytest.mark.long
def test_a_model_is_checked_once_and_again_if_anything_below_it_changed(shop):
    config = {"unique_key": "customer_id", "changed_by": [{"model": "stg_customers", "key": "customer_id"}]}
    query = "select customer_id, country from {{ ref('stg_customers') }}"
    shop.begin(1, [Model("model_", ("customer_id", "country"), ("customer_id",), query=query, config=config)])
    log = shop.checkout.root / "logs" / "dbt.log"

    def checks() -> int:
        """Build; return how many plans that took."""
        before = log.read_text().count("explain (") if log.exists() else 0
        shop.build()
        return log.read_text().count("explain (") - before

    assert checks()
    # the first build created the log in raw, which the second sees
    checks()
    assert not checks()
    with shop.connect() as connection:
        connection.execute("create index on raw.customers (country)")
    assert checks()
    assert not checks()
    view = shop.checkout.root / "transform" / "models" / "stg_customers.sql"
    written = view.read_text()
    view.write_text(written.replace(" country,", " lag(country) over (order by customer_id) as country,"))
    try:
        said = shop.checkout.dbt("build").stdout
    finally:
        view.write_text(written)
    assert "a window function, whose partition by lacks the key" in said
