"""What an author of models by key meets: refusals in words of SQL, and dbt's own commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout

pytestmark = pytest.mark.long
ORDERS = "{{ ref('stg') }}"
CHANGED_BY = "[{'model': 'stg', 'key': 'order_id'}]"
PLAIN = f"select order_id, status, shipping_fee, shipping_fee * 1.0 as with_tax from {ORDERS}"
FEES = """
    select status, count(*) as order_count, count(shipping_fee) as fee_count, sum(shipping_fee) as fees
    from {{ ref('plain') }} group by status
"""
MARTS = ("fees", "fees_by_difference")
# the rows of both marts that are missing or wrong
WRONG = " union all ".join(
    f"(({{truth}}) except table {{prefix}}marts.{name}) union all (table {{prefix}}marts.{name} except ({{truth}}))"
    for name in MARTS
)
TOTALS = "select status, count(*) as order_count from {{ ref('plain') }}"
BY_DIFFERENCE = "unique_key='status', by_difference=true, changed_by=[{'model': 'plain', 'key': 'status'}]"
BEFORE = "can't apply a condition on order_id before "
# a model's settings, its SELECT, and what the build says
REFUSED = {
    "window": (
        "",
        f"select order_id, lag(status) over (order by order_id) as before from {ORDERS}",
        BEFORE + "a window function",
    ),
    "twice": (
        "",
        (
            f"with w as (select *, row_number() over (partition by order_id order by status) as n from {ORDERS}) "
            "select a.order_id, b.status from w as a inner join w as b on b.order_id = a.order_id and b.n = a.n"
        ),
        "(in the CTE w, which is read twice: write w as not materialized)",
    ),
    "first": ("", f"{PLAIN} order by shipping_fee limit 9", BEFORE + "LIMIT"),
    "without": ("", f"select order_id from {ORDERS} except select 7", BEFORE + "EXCEPT or INTERSECT"),
    "latest": (
        "",
        f"select distinct on (status) order_id, status from {ORDERS} order by status, order_id",
        BEFORE + "DISTINCT ON other columns",
    ),
    "share": (
        "",
        f"select order_id, shipping_fee / (select sum(shipping_fee) from {ORDERS}) as share from {ORDERS}",
        BEFORE + "a total over all rows",
    ),
    "nulls": ("", f"select order_id from {ORDERS} union all select null", "gives 1 row(s) with order_id = (null)"),
    "quoted": (
        """changed_by=[{'model': "{{ ref('stg') }}", 'key': 'order_id'}]""",
        PLAIN,
        "changed_by has the model {{ ref('stg') }}, and takes names as text, without ref() or source()",
    ),
    "input": ("changed_by=[{'model': 'raw.order', 'key': 'order_id'}]", PLAIN, "Did you mean raw.orders?"),
    "column": ("changed_by=[{'model': 'stg', 'key': 'oder_id'}]", PLAIN, "Did you mean order_id?"),
    "part": ("changed_by=[{'model': 'stg', 'key': 'order_id', 'colums': ['status']}]", PLAIN, "Did you mean columns?"),
    "told": (
        "changed_by=[{'model': 'plain', 'key': 'order_id', 'columns': ['shiping_fee']}]",
        "select order_id, shipping_fee from {{ ref('plain') }}",
        "Did you mean shipping_fee?",
    ),
    "keyed": ("unique_key='orderid'", PLAIN, "Did you mean order_id?"),
    "setting": ("chagned_by=[]", PLAIN, "has no setting chagned_by. Did you mean changed_by?"),
    "joined": (
        BY_DIFFERENCE,
        TOTALS + " inner join {{ ref('stg') }} using (order_id, status) group by status",
        "cannot be built by_difference: it reads more than one table",
    ),
    "ranked": (
        BY_DIFFERENCE,
        TOTALS.replace(" from", ", row_number() over (order by status) as place from") + " group by status",
        "it is more than a GROUP BY of one table: a window function",
    ),
    "rounded": (
        BY_DIFFERENCE,
        FEES.replace("sum(shipping_fee)", "sum(shipping_fee)::numeric(12, 1)"),
        "as numeric(12,1), which would round each difference",
    ),
    "digits": (
        BY_DIFFERENCE,
        FEES.replace("shipping_fee", "with_tax"),
        "fees sums with_tax of type numeric, which keeps no fixed number of digits",
    ),
}


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    for project in make_checkout(stage="loaded"):
        (project.remove_models() / "sources.yml").write_text(
            "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]"
        )
        write(
            project,
            "stg",
            "materialized='in_place_view', event_time='ordered_at'",
            "select * from {{ source('raw', 'orders') }}",
        )
        write(project, "plain", f"unique_key='order_id', changed_by={CHANGED_BY}", PLAIN)
        fees = "unique_key='status', changed_by=[{'model': 'plain', 'key': 'status', 'columns': ['shipping_fee']}]"
        write(project, "fees", fees, FEES)
        write(project, "fees_by_difference", fees + ", by_difference=true", FEES)
        project.build()
        yield project


def write(project: Checkout, name: str, settings: str, query: str) -> None:
    materialized = "" if "materialized=" in settings else "materialized='incremental_by_key', "
    config = f"{{{{ config(schema='marts', {materialized}{settings}) }}}}"
    model(project, name).write_text(f"{config}\n{query}\n")


def model(project: Checkout, name: str) -> Path:
    return project.root / "transform" / "models" / f"{name}.sql"


def wrong(project: Checkout, prefix: str = "") -> list[tuple]:
    """Return the rows of the two marts that differ from what their SELECT gives over production's table."""
    truth = FEES.replace("{{ ref('plain') }}", "marts.plain")
    return project.rows("warehouse", WRONG.format(truth=truth, prefix=prefix))


def move(project: Checkout, status: str) -> None:
    """Move some orders to another group, and change nothing else."""
    with project.connect("warehouse") as connection:
        connection.execute(
            f"update raw.orders set status = '{status}', _tidemark_loaded_xid = default "
            "where order_id between 100 and 120"
        )


def evaluated(printed: str) -> dict[str, int]:
    """Return how many keys a build evaluated, for each model that it did not compute in full."""
    return {name: int(count) for name, count in re.findall(r"marts\.(\w+) \.* ?\[(\d+) keys?: ", printed)}


def test_each_refusal_says_in_an_authors_words_what_was_wrong_and_what_was_meant(project):
    for name, (settings, query, _) in REFUSED.items():
        defaults = {"unique_key": "'order_id'", "changed_by": CHANGED_BY}
        given = [f"{key}={value}" for key, value in defaults.items() if f"{key}=" not in settings]
        write(project, name, ", ".join([*given, settings] if settings else given), query)
    done = project.dbt("run", "--select", *REFUSED)
    for name in REFUSED:
        model(project, name).unlink()
    assert done.returncode == 1
    failed = " ".join(done.stdout.split()).partition("Completed with")[2].split(" Failure in model ")
    said = {text.split()[0]: text for text in failed[1:]}
    assert said.keys() == REFUSED.keys()
    assert {name: text for name, (*_, text) in REFUSED.items() if text not in said[name]} == {}, said
    names = ",".join(REFUSED)
    assert project.rows("warehouse", f"select count(*) from pg_class where relname = any('{{{names}}}')") == [(0,)]


def test_a_ref_inside_config_is_named_by_one_line(project):
    changed_by = "[{'model': ref('stg'), 'key': 'order_id'}]"
    write(project, "referring", f"unique_key='order_id', changed_by={changed_by}", PLAIN)
    try:
        printed, code = project.dbt_failure("run", "--select", "plain")
    finally:
        model(project, "referring").unlink()
    assert code == "dbt_project_invalid"
    assert "Compilation Error in model referring" in printed
    assert "changed_by in config() has a ref() or source(), which dbt can't store there" in printed


def test_a_row_that_moves_to_another_group_changes_both_whatever_columns_names(project):
    move(project, "pending")
    printed = project.build()
    assert evaluated(printed)["plain"] == 21
    assert 1 < evaluated(printed)["fees"] == evaluated(printed)["fees_by_difference"]
    assert wrong(project) == []


def test_models_above_a_clone_follow_the_changes_of_the_table_that_it_shows(project):
    own = {"DBT_SCHEMA_PREFIX": "ana_"}
    good = str(project.root / ".meltano" / "dbt" / "good")
    project.dbt("run")
    kind = "select relkind::text from pg_class where oid = 'ana_marts.plain'::regclass"
    done = project.dbt("clone", "--select", "plain", "--state", good, env=own)
    assert done.returncode == 0, done.stdout
    assert project.rows("warehouse", kind) == [("v",)]
    project.build("--select", *MARTS, env=own)
    move(project, "paid")
    project.build("--select", "plain")
    printed = project.build("--select", *MARTS, env=own)
    assert evaluated(printed).keys() == set(MARTS), printed
    assert wrong(project, "ana_") == []
    # then the developer builds the input too: dbt's view gives way to a table
    project.build(env=own)
    assert project.rows("warehouse", kind) == [("r",)]
    assert wrong(project, "ana_") == []


def test_an_empty_or_sampled_build_works_in_ones_own_schemas_and_the_next_one_has_all_rows(project):
    own = {"DBT_SCHEMA_PREFIX": "eva_"}
    horizons = "select distinct horizon::text from eva_marts._tidemark_models where model = any('{plain,fees}')"
    missing = "select count(*) from (table marts.plain except table eva_marts.plain) as missing"
    for options in (["--empty"], ["--sample", "{'start': '2000-01-01', 'end': '2000-01-02'}"]):
        assert project.dbt("run", *options).returncode, "production's tables would lose their rows"
        done = project.dbt("run", *options, env=own)
        assert done.returncode == 0, done.stdout
        assert project.rows("warehouse", "select count(*) from eva_marts.plain") == [(0,)]
        assert project.rows("warehouse", horizons) == [("0",)]
        project.build(env=own)
        assert project.rows("warehouse", missing) == [(0,)]
    write(
        project, "aliased", f"unique_key='order_id', changed_by={CHANGED_BY}", f"select o.order_id from {ORDERS} as o"
    )
    try:
        said = " ".join(project.dbt("run", "--empty", "--select", "aliased", env=own).stdout.split())
        assert "Read it in a CTE: with o as (select * from {{ ref('stg') }})" in said
        project.build("--select", "aliased", env=own)
    finally:
        model(project, "aliased").unlink()


def test_a_retry_builds_what_failed_and_show_and_compile_give_the_plain_select(project):
    write(
        project,
        "halves",
        f"unique_key='order_id', changed_by={CHANGED_BY}",
        f"select order_id, 1 / 0 as half from {ORDERS}",
    )
    try:
        assert project.dbt("run").returncode == 1
        write(
            project,
            "halves",
            f"unique_key='order_id', changed_by={CHANGED_BY}",
            f"select order_id, 1 as half from {ORDERS}",
        )
        retried = project.dbt("retry")
        assert retried.returncode == 0, retried.stdout
        assert "1 of 1 OK created sql incremental_by_key model marts.halves" in retried.stdout
        noted = project.rows("warehouse", "table marts._tidemark_models order by model")
        shown = project.dbt("show", "--select", "halves", "--limit", "2")
        assert re.search(r"\| +order_id \| half \|", shown.stdout), shown.stdout
        compiled = project.dbt("compile", "--select", "halves").stdout
        assert 'select order_id, 1 as half from "warehouse"."marts"."stg"' in compiled
        assert project.rows("warehouse", "table marts._tidemark_models order by model") == noted
    finally:
        model(project, "halves").unlink()
