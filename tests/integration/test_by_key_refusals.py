"""What incremental_by_key refuses, in words that an author of SQL knows, before a build changes anything."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout

pytestmark = pytest.mark.long
ORDERS = "{{ ref('stg') }}"
CHANGED_BY = "[{'model': 'stg', 'key': 'order_id'}]"
PLAIN = f"select order_id, status, shipping_fee from {ORDERS}"
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
    "nulls": ("", f"select nullif(order_id, 7) as order_id from {ORDERS}", "gives 1 row(s) with order_id = (null)"),
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
}


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    for project in make_checkout(stage="loaded"):
        transform = project.root / "transform"
        for directory in ("models", "snapshots", "tests"):
            shutil.rmtree(transform / directory)
        (transform / "models").mkdir()
        (transform / "models" / "sources.yml").write_text(
            "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]"
        )
        write(project, "stg", "materialized='in_place_view'", "select * from {{ source('raw', 'orders') }}")
        write(project, "plain", f"unique_key='order_id', changed_by={CHANGED_BY}", PLAIN)
        yield project


def write(project: Checkout, name: str, settings: str, query: str) -> None:
    materialized = "" if "materialized=" in settings else "materialized='incremental_by_key', "
    config = f"{{{{ config(schema='marts', {materialized}{settings}) }}}}"
    (project.root / "transform" / "models" / f"{name}.sql").write_text(f"{config}\n{query}\n")


def test_each_refusal_says_in_an_authors_words_what_was_wrong_and_what_was_meant(project):
    project.build()
    for name, (settings, query, _) in REFUSED.items():
        defaults = {"unique_key": "'order_id'", "changed_by": CHANGED_BY}
        given = [f"{key}={value}" for key, value in defaults.items() if f"{key}=" not in settings]
        write(project, name, ", ".join([*given, settings] if settings else given), query)
    done = project.dbt("run", "--select", *REFUSED)
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
        (project.root / "transform" / "models" / "referring.sql").unlink()
    assert code == "dbt_project_invalid"
    assert "Compilation Error in model referring" in printed
    assert "changed_by in config() has a ref() or source(), which dbt can't store there" in printed
