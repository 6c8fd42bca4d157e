"""The partitions of an in-place table: their bounds, rows that move between them, and rows in the default one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.marts import assert_as_a_full_build_has_them, load, written
from tests.integration.stages import make_checkout
from tests.integration.test_in_place import edited, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


@pytest.mark.long
def test_rows_in_the_default_partition_are_moved_to_their_own(project):
    with project.connect("warehouse") as connection:
        connection.execute("create temporary table stray as select * from marts.fct_sales limit 1")
        connection.execute(
            "update stray set order_item_id = -1, ordered_on = '2033-03-03'; insert into marts.fct_sales table stray"
        )
        assert connection.execute("select count(*) from marts.fct_sales_default").fetchone() == (1,)
    project.build()
    assert project.rows("warehouse", "select count(*) from marts.fct_sales_default") == [(0,)]
    assert project.rows("warehouse", "select order_item_id from marts.fct_sales_2033_03") == [(-1,)]
    project.build("--full-refresh", "--select", "marts")
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_the_next_build_completes_one_that_stopped_between_partitions_and_rows(project):
    with project.connect("warehouse") as connection:
        connection.execute("create table raw.before as select order_id, ordered_at from raw.orders where order_id = 60")
        connection.execute(load("orders", "ordered_at = '2034-05-05'", "order_id = 60"))
    # the build fails at an index, after it created the partitions and released their locks
    nowhere = ("{'columns': ['order_id']},", "{'columns': ['nowhere']},")
    with edited(project, "models/marts/fct_sales.sql", nowhere):
        assert 'column "nowhere" does not exist' in refused(project, "fct_sales")
    here = "select count(*) from marts.fct_sales_2034_05"
    assert project.rows("warehouse", here) == [(0,)]
    ((lines,),) = project.rows("warehouse", "select count(*) from raw.order_items where order_id = 60")
    # a row that moves to another partition counts as changed, not as new
    assert written(project.build())["fct_sales"] == (0, lines, 0)
    assert project.rows("warehouse", here) == [(lines,)]
    assert_as_a_full_build_has_them(project)
    with project.connect("warehouse") as connection:
        # a change by hand, without a stamp
        connection.execute(
            "update raw.orders o set ordered_at = b.ordered_at from raw.before b where o.order_id = b.order_id;"
            "drop table raw.before"
        )
    assert written(project.build())["fct_sales"] == (0, lines, 0)
    assert project.rows("warehouse", NOTED_ROWS) == [(True,)]
    assert_as_a_full_build_has_them(project)


NOTED_ROWS = (
    "select rows_total = (select count(*) from marts.fct_sales) from marts._tidemark_models where model = 'fct_sales'"
)


@pytest.mark.long
def test_a_sale_with_an_infinite_date_stays_in_the_default_partition_until_it_has_a_real_one(project):
    with project.connect("warehouse") as connection:
        connection.execute(
            "create table raw.before as select order_id, ordered_at from raw.orders where order_id in (61, 62)"
        )
        ((lines,),) = connection.execute("select count(*) from raw.order_items where order_id in (61, 62)").fetchall()
        connection.execute(load("orders", "ordered_at = 'infinity'", "order_id = 61"))
        connection.execute(load("orders", "ordered_at = '0044-03-15 BC'", "order_id = 62"))
    assert written(project.build("--select", "fct_sales"))["fct_sales"] == (0, lines, 0)
    default = "select count(*) from marts.fct_sales_default"
    assert project.rows("warehouse", default) == [(lines,)]
    with project.connect("warehouse") as connection:
        # the partition of another row is created at the same time
        connection.execute(load("orders", "ordered_at = '2035-05-05'", "order_id = 63"))
    project.build("--select", "fct_sales")
    assert project.rows("warehouse", "select count(*) > 0 from marts.fct_sales_2035_05") == [(True,)]
    with project.connect("warehouse") as connection:
        connection.execute(
            "update raw.orders o set ordered_at = b.ordered_at, _tidemark_loaded_xid = pg_current_xact_id() "
            "from raw.before b where o.order_id = b.order_id; drop table raw.before"
        )
    assert written(project.build())["fct_sales"] == (0, lines, 0)
    assert project.rows("warehouse", default) == [(0,)]
    assert project.rows("warehouse", NOTED_ROWS) == [(True,)]
    assert_as_a_full_build_has_them(project)


SCRATCH = """
{{
    config(
        materialized='in_place_incremental',
        unique_key='id',
        partition_by={'column': 'at', 'grain': 'month'},
        contract={'enforced': false},
    )
}}
{%- set changed %}
    select id from public.scratch -- all of them
{%- endset %}
select scratch.id, scratch.at from public.scratch as scratch
{% if in_place.is_incremental() %}
    inner join {{ in_place.staged_keys(changed) }} on scratch.id = changed.id
{% endif %}
-- the end
"""


@pytest.mark.long
def test_partitions_begin_at_utc_bounds_and_a_conflicting_one_is_named(project):
    model = project.root / "transform" / "models" / "marts" / "scratch.sql"
    model.write_text(SCRATCH)
    try:
        with project.connect("warehouse") as connection:
            connection.execute(
                "create table public.scratch (id int, at timestamptz);"
                "insert into public.scratch values (1, '2026-01-10');"
                "grant select on public.scratch to tidemark_transformer"
            )
            project.build("--select", "scratch")
            connection.execute("insert into public.scratch values (2, '2026-01-31 23:30Z'), (3, '2026-02-28 23:30Z')")
            assert written(project.build("--select", "scratch", env={"PGTZ": "Europe/Berlin"}))["scratch"] == (2, 0, 0)
            found = connection.execute(
                "select relname, pg_get_expr(relpartbound, oid) from pg_class "
                "where relname ~ '^scratch_2' and relkind = 'r' order by 1"
            ).fetchall()
            assert found == [
                (
                    f"scratch_2026_0{month}",
                    f"FOR VALUES FROM ('2026-0{month}-01 00:00:00+00') TO ('2026-0{month + 1}-01 00:00:00+00')",
                )
                for month in (1, 2)
            ]
            connection.execute("alter table marts.scratch detach partition marts.scratch_2026_02")
            assert re.search(
                r'scratch" needs a partition from 2026-02-01 .*, but scratch_2026_02 exists and is not a partition. '
                "Attach it",
                refused(project, "scratch"),
            )
            connection.execute("drop table marts.scratch_2026_02")
            model.write_text(SCRATCH.replace("'grain': 'month'", "'grain': 'year'"))
            assert re.search(
                r'scratch" has partitions with some of the year from 2026-01-01 .*: partition "scratch_2026" would '
                r'overlap partition "scratch_2026_01". Set the grain',
                refused(project, "scratch"),
            )
    finally:
        model.unlink()
        with project.connect("warehouse") as connection:
            connection.execute("drop table if exists public.scratch, marts.scratch, marts.scratch_2026_02")
