"""Inputs of an in-place table other than raw and other such tables: it misses no row of them and is never stale."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.marts import load
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

SOURCES = """
sources:
  - {name: app, schema: raw, tables: [{name: orders}]}
  - {name: others, schema: elsewhere, tables: [{name: orders}]}
"""
FROM_RAW = "select order_id, customer_id, status, shipping_fee, _tidemark_loaded_xid as loaded_xid from {}"
NEW = "select order_id, customer_id, status, shipping_fee from {}{{% if in_place.is_incremental() %}} {} {{% endif %}}"
FILTER = "where loaded_xid >= {{ in_place.horizon() }}"
KEYED = "materialized='in_place_incremental', unique_key='order_id', schema='marts'"
SUMMED = "materialized='in_place_materialized_view', schema='marts', indexes=[{'columns': ['status'], 'unique': true}]"
SUM = "select status, count(*) as orders from {} group by status"


def model(config: str, query: str) -> str:
    return f"{{{{ config({config}) }}}}\n{query}\n"


RAW = "{{ source('app', 'orders') }}"
STOCK = {
    "t": model("materialized='table', schema='marts'", FROM_RAW.format(RAW)),
    "i": model(
        "materialized='incremental', unique_key='order_id', schema='marts'",
        FROM_RAW.format(RAW) + "{% if is_incremental() %} where updated_at >= now() - interval '1 year' {% endif %}",
    ),
    "v": model("materialized='view', schema='marts'", "select * from {{ ref('t') }}"),
    "e": model("materialized='ephemeral'", "select * from {{ ref('v') }}"),
    "m": model("materialized='materialized_view', schema='marts'", FROM_RAW.format(RAW)),
}
IN_PLACE = {
    "k_t": model(KEYED, NEW.format("{{ ref('t') }}", FILTER)),
    "k_i": model(KEYED, NEW.format("{{ ref('i') }}", FILTER)),
    "k_e": model(KEYED, NEW.format("{{ ref('e') }}", FILTER)),
    "k_m": model(KEYED, NEW.format("{{ ref('m') }}", FILTER)),
    "k_others": model(KEYED, NEW.format("{{ source('others', 'orders') }}", FILTER)),
    "k_function": model(KEYED, NEW.format("elsewhere.read_orders()", FILTER)),
    # it finds changes through one relation and reads the rows from another
    "k_keys": model(
        KEYED,
        f"{{%- set changed %}} select order_id from {{{{ ref('t') }}}} {FILTER} {{%- endset %}}\n"
        + NEW.format(RAW, "where order_id in (select order_id from {{ in_place.staged_keys(changed) }})"),
    ),
    # on a model whose horizon is that of its own input
    "k_k": model(KEYED, NEW.format(RAW, "where " + FILTER[6:].replace("loaded_xid", "_tidemark_loaded_xid", 1))),
}
VIEWS = {
    "mv_raw": model(SUMMED, SUM.format("{{ ref('kv') }}")),
    "mv_i": model(SUMMED, SUM.format("{{ ref('i') }}")),
    "mv_in_place": model(SUMMED, SUM.format("{{ ref('k_k') }}")),
    "mv_day": model(SUMMED, SUM.format("{{ ref('k_k') }} where current_date > '2000-01-01'")),
    "mv_function": model(SUMMED, SUM.format("{{ ref('k_k') }} where elsewhere.is_open()")),
    "mv_sample": model(SUMMED, SUM.format("{{ ref('k_k') }} tablesample system (100)")),
    "mv_catalog": model(SUMMED, SUM.format("{{ ref('k_k') }} where exists (select from pg_catalog.pg_class)")),
    "mv_clock": model(SUMMED, SUM.format("{{ ref('k_k') }} where 'now'::text::date > '2000-01-01'")),
    "kv": model("materialized='in_place_view', schema='marts'", f"select order_id, status from {RAW}"),
}
MODELS = {**STOCK, **IN_PLACE, **VIEWS}
ORDERS = "select count(*), sum(shipping_fee) from {}"


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A loaded project with additional models, which are built."""
    for project in make_checkout(stage="loaded"):
        models = project.remove_models()
        (models / "sources.yml").write_text(SOURCES)
        for name, text in MODELS.items():
            (models / f"{name}.sql").write_text(text)
        with project.connect("warehouse") as connection:
            connection.execute(
                "create schema elsewhere; create table elsewhere.orders as " + FROM_RAW.format("raw.orders") + ";"
                "grant usage on schema elsewhere to public; grant select on elsewhere.orders to public;"
                "create function elsewhere.read_orders() returns table (order_id bigint, customer_id bigint, "
                "status text, shipping_fee numeric, loaded_xid xid8) language plpgsql stable as "
                "'begin return query select o.order_id::bigint, o.customer_id::bigint, o.status::text, "
                "o.shipping_fee::numeric, o.loaded_xid from elsewhere.orders as o; end';"
                "create function elsewhere.is_open() returns boolean language sql stable as 'select true'"
            )
        # the materialized views are for the long tests
        project.build("--exclude", "mv_*")
        yield project


def new_orders(project: Checkout, first: int) -> None:
    """Load 50 new orders and change 20."""
    with project.connect("warehouse") as connection:
        connection.execute(
            "create temporary table arrived as select * from raw.orders order by order_id limit 50;"
            f"update arrived set order_id = order_id + {first}, updated_at = now(), "
            "_tidemark_loaded_xid = pg_current_xact_id(); insert into raw.orders table arrived"
        )
        connection.execute(load("orders", "shipping_fee = shipping_fee + 1, updated_at = now()", "order_id <= 20"))


def differing(project: Checkout) -> set[str]:
    """Return the in-place tables whose rows differ from raw."""
    (expected,) = project.rows("warehouse", ORDERS.format("raw.orders"))
    return {name for name in IN_PLACE if project.rows("warehouse", ORDERS.format(f"marts.{name}")) != [expected]}


@pytest.mark.long
def test_rows_loaded_after_an_input_was_built_are_in_a_later_build(project):
    assert differing(project) == set()
    new_orders(project, 1_000_000)
    # these models see the new rows in raw, but their inputs do not have them yet
    project.build("--select", *IN_PLACE)
    assert differing(project) == IN_PLACE.keys() - {"k_k"}
    with project.connect("warehouse") as connection:
        connection.execute("truncate elsewhere.orders")
        connection.execute("insert into elsewhere.orders " + FROM_RAW.format("raw.orders"))
    printed = project.build("--exclude", "mv_*")
    assert differing(project) == set()
    assert 'k_others" computes all of its rows at each build' in printed
    assert "have no known horizon: elsewhere.orders." in printed
    assert "have no known horizon: elsewhere.read_orders()." in printed
    # an incremental model that is emptied and built in full gets rows that are older than any horizon
    with project.connect("warehouse") as connection:
        connection.execute("delete from marts.i where order_id <= 5")
        connection.execute("delete from marts.k_i where order_id <= 5")
    project.build("--select", "k_i")
    assert differing(project) == {"k_i"}
    project.build("--select", "i", "--full-refresh")
    project.build("--select", "k_i")
    assert differing(project) == set()


@pytest.mark.long
def test_a_developers_model_on_a_production_input_misses_no_row(project):
    # the manifest of a good build is what a developer defers to
    project.build()
    own = {"DBT_SCHEMA_PREFIX": "ana_"}
    deferred = ("--select", "k_t", "--defer", "--state", str(project.root / ".meltano" / "dbt" / "good"))
    project.build(*deferred, env=own)
    new_orders(project, 2_000_000)
    project.build(*deferred, env=own)
    project.build()
    project.build(*deferred, env=own)
    assert project.rows("warehouse", ORDERS.format("ana_marts.k_t")) == project.rows(
        "warehouse", ORDERS.format("raw.orders")
    )


def summed(project: Checkout) -> dict[str, bool]:
    """Return for each materialized view whether it equals raw."""
    ((orders,),) = project.rows("warehouse", "select count(*) from raw.orders")
    return {
        name: project.rows("warehouse", f"select sum(orders)::bigint from marts.{name}") == [(orders,)]
        for name in VIEWS
        if name.startswith("mv")
    }


@pytest.mark.long
def test_a_materialized_view_is_refreshed_whenever_anything_below_it_may_have_changed(project):
    right = dict.fromkeys((name for name in VIEWS if name.startswith("mv")), True)
    project.build()
    assert summed(project) == right
    new_orders(project, 3_000_000)
    project.build()
    assert summed(project) == right
    # nothing records a row that somebody deleted
    with project.connect("warehouse") as connection:
        connection.execute("delete from raw.orders where order_id = 1")
        connection.execute("delete from marts.k_k where order_id = 1; delete from marts.i where order_id = 1")
    printed = project.build("--select", *(name for name in right if name != "mv_i"))
    assert summed(project) == {**right, "mv_in_place": False, "mv_i": False}
    assert printed.count("[nothing below it changed in") == 1
    project.build("--select", "mv_in_place", "mv_i", "--full-refresh")
    assert summed(project) == right
    # the next refresh sees what commits during this one
    with project.connect("warehouse") as writer:
        writer.autocommit = False
        writer.execute("delete from marts.k_k where order_id = 2")
        writer.execute(
            "update marts._tidemark_models set changed_at = now(), changed_xid = pg_current_xact_id() "
            "where model = 'k_k'"
        )
        project.build("--select", "mv_in_place")
        writer.commit()
    project.build("--select", "mv_in_place")
    count = "select (select count(*) from marts.k_k) - (select sum(orders) from marts.mv_in_place)"
    assert project.rows("warehouse", count) == [(0,)]
    # a view without rows, as after a restore without data, is filled
    with project.connect("warehouse") as connection:
        connection.execute("refresh materialized view marts.mv_in_place with no data")
    project.build("--select", "mv_in_place")
    assert project.rows("warehouse", count) == [(0,)]


@pytest.mark.long
def test_a_source_with_row_level_security_is_refused_because_the_marts_would_drop_hidden_rows(project):
    with project.connect("warehouse") as connection:
        connection.execute("alter table raw.orders enable row level security")
    try:
        before = project.rows("warehouse", ORDERS.format("marts.k_k"))
        refused = project.dbt("run", "--select", "k_k")
        said = " ".join((refused.stdout + refused.stderr).split())
        assert refused.returncode
        assert "Row-level security applies to tidemark_transformer in " in said
        assert '"raw"."orders"' in said
        assert project.rows("warehouse", ORDERS.format("marts.k_k")) == before
    finally:
        with project.connect("warehouse") as connection:
            connection.execute("alter table raw.orders disable row level security")


@pytest.mark.long
def test_an_edited_seed_reaches_everything_that_depends_on_it(project):
    transform = project.root / "transform"
    (transform / "seeds").mkdir(exist_ok=True)
    labels = transform / "seeds" / "labels.csv"
    labels.write_text("status,label\npaid,1\nshipped,2\n")
    label = "materialized='in_place_view', schema='marts'"
    (transform / "models" / "labelled.sql").write_text(model(label, "select status, label from {{ ref('labels') }}"))
    (transform / "models" / "k_labels.sql").write_text(
        model(
            KEYED,
            "select order_id, label::text as label from {{ source('app', 'orders') }} "
            "left join {{ ref('labelled') }} using (status) "
            "{% if in_place.is_incremental() %} where _tidemark_loaded_xid >= {{ in_place.horizon() }} {% endif %}",
        )
    )
    (transform / "models" / "mv_labels.sql").write_text(
        model(SUMMED, "select status, max(label) as label from {{ ref('labels') }} group by status")
    )
    found = (
        "select (select string_agg(distinct label, ' ' order by label) from marts.k_labels), "
        "(select string_agg(label::text, ' ' order by label) from marts.mv_labels)"
    )
    above = ("--select", "labels+")
    # as the job does
    done = project.run("meltano", "invoke", "dbt-postgres:run", *above)
    assert done.returncode == 0, done.stdout
    assert project.rows("warehouse", found) == [("1 2", "1 2")]
    labels.write_text("status,label\npaid,1\nshipped,3\n")
    # without the seed there is nothing new
    project.build("--select", "k_labels", "mv_labels")
    assert project.rows("warehouse", found) == [("1 2", "1 2")]
    project.build(*above)
    assert project.rows("warehouse", found) == [("1 3", "1 3")]
    printed = project.build(*above)
    assert re.search(r"seed file marts.labels \.* ?\[unchanged", printed)
    assert "[0 new, 0 changed, 0 gone in" in printed
    assert "[nothing below it changed in" in printed
    # a new column, and a new type for one that views read; the same run creates those views again
    labels.write_text("status,label,more\npaid,one,x\nshipped,two,y\n")
    project.build(*above)
    assert project.rows("warehouse", found) == [("one two", "one two")]
    # a view that no model makes
    with project.connect("warehouse") as connection:
        connection.execute("create view public.theirs as select more from marts.labels")
    labels.write_text("status,label\npaid,one\n")
    done = project.dbt("build", *above)
    assert done.returncode == 1
    assert 'labels" is to change (more), but other views depend on it: public.theirs. No model' in done.stdout
    project.build("--full-refresh", "--exclude", "labels+")
    with project.connect("warehouse") as connection:
        connection.execute("drop view public.theirs")
    project.build(*above, "--full-refresh")
    assert project.rows("warehouse", found) == [("one", "one")]
    assert project.rows("warehouse", "select from pg_class where relname like '%\\_\\_old\\_%'") == []


@pytest.mark.long
def test_a_developers_view_does_not_block_production(project):
    own = {"DBT_SCHEMA_PREFIX": "ana_"}
    models = project.root / "transform" / "models"
    project.build()
    assert project.dbt("build").returncode == 0
    (models / "own.sql").write_text(
        model("materialized='in_place_view', schema='marts'", "select order_id, status from {{ ref('kv') }}")
    )
    deferred = ("--select", "own", "--defer", "--state", str(project.root / ".meltano" / "dbt" / "good"))
    project.build(*deferred, env=own)
    hers = (models / "own.sql").read_text()
    (models / "own.sql").unlink()
    # in production, a column gets another type
    before = (models / "kv.sql").read_text()
    (models / "kv.sql").write_text(before.replace("order_id, status", "order_id::text as order_id, status"))
    aside = "select count(*)::int from pg_class where relname like '%\\_\\_old\\_%'"
    try:
        project.build("--select", "kv+")
        assert project.rows("warehouse", "select pg_typeof(order_id)::text from marts.kv limit 1") == [("text",)]
        # her view reads the old one until she builds it
        assert project.rows("warehouse", "select pg_typeof(order_id)::text from ana_marts.own limit 1") == [("bigint",)]
        assert project.rows("warehouse", aside) == [(1,)]
        (models / "own.sql").write_text(hers)
        project.build(*deferred, env=own)
        assert project.rows("warehouse", "select pg_typeof(order_id)::text from ana_marts.own limit 1") == [("text",)]
        assert project.rows("warehouse", aside) == [(0,)]
    finally:
        (models / "own.sql").unlink(missing_ok=True)
        (models / "kv.sql").write_text(before)
