"""A full refresh applies changes of an in-place table's model, or the build refuses them with advice that works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.marts import reading, written
from tests.integration.stages import make_checkout
from tests.integration.test_in_place import refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout

ORDERS = "{{ source('app', 'orders') }}"
COLUMNS = "status, shipping_fee, ordered_at::date as ordered_on"
# one row per order; then two, with another key, and a column type to which no old value can be cast
ONE = f"select order_id, 1 as line, order_id % 2 = 0 as odd, {COLUMNS} from {ORDERS}"
TWO = (
    f"select order_id, line, case when order_id % 2 = 0 then ordered_at end as odd, {COLUMNS} from {ORDERS} "
    "cross join generate_series(1, 2) as line"
)
# a key of a type to which no old value can be cast
KEYED_ANEW = ONE.replace("order_id,", "md5(order_id::text)::uuid as order_id,", 1)
BY_DAY = ", partition_by={'column': 'ordered_on', 'grain': 'month'}"
IN_PLACE = "materialized='in_place_incremental', unique_key='order_id'"
PARTITIONED = "materialized='in_place_incremental', unique_key='order_id'"
KINDS = {
    "k_i": ("in_place_incremental", ", partial_indexes=[{'columns': ['line'], 'where': 'not odd is null'}]"),
    "k_t": ("in_place_table", ""),
    "k_p": ("in_place_incremental", BY_DAY),
}


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    for project in make_checkout(stage="loaded"):
        (project.remove_models() / "sources.yml").write_text(
            "sources: [{name: app, schema: raw, tables: [{name: orders}, {name: customers}]}]"
        )
        yield project


def models(project: Checkout) -> Path:
    return project.root / "transform" / "models"


def write(project: Checkout, name: str, config: str, query: str) -> None:
    (models(project) / f"{name}.sql").write_text(f"{{{{ config(schema='marts', {config}) }}}}\n{query}\n")


def write_all(project: Checkout, key: str, query: str) -> None:
    for name, (kind, config) in KINDS.items():
        write(project, name, f"materialized='{kind}', unique_key={key}{config}", query)


@pytest.mark.long
def test_another_key_and_uncastable_types_are_applied_in_place_under_readers(project):
    write_all(project, "'order_id'", ONE)
    project.build()
    with project.connect("warehouse") as connection:
        connection.execute("create role looker; create schema looks")
        for name in KINDS:
            connection.execute(f"create view looks.{name} as select order_id, shipping_fee from marts.{name}")
            connection.execute(f"grant select on marts.{name} to looker")
    ((orders,),) = project.rows("warehouse", "select count(*) from raw.orders")
    smallest = f"select least({', '.join(f'(select count(*) from looks.{name})' for name in KINDS)})"
    write_all(project, "['order_id', 'line']", TWO)
    said = refused(project, *KINDS)
    assert 'k_i" has odd as boolean, the model as timestamp with time zone; has the key (order_id), ' in said
    assert 'k_p" has odd as boolean' in said
    assert "the model (order_id, line, ordered_on). Run it once with --full-refresh" in said
    with reading(project, smallest) as answers:
        done = written(project.build("--full-refresh"))
        assert done == dict.fromkeys(KINDS, (2 * orders, 0, orders))
    assert set(answers) <= {orders, 2 * orders}
    # now an incremental build and another full one change nothing
    assert written(project.build()) == dict.fromkeys(KINDS, (0, 0, 0))
    assert written(project.build("--full-refresh")) == dict.fromkeys(KINDS, (0, 0, 0))
    for query, key in ((ONE, "'order_id'"), (ONE.replace("status, ", ""), "['line', 'order_id']"), (ONE, "'order_id'")):
        write_all(project, key, query)
        refused(project, *KINDS)
        project.build("--full-refresh")
        assert written(project.build("--full-refresh")) == dict.fromkeys(KINDS, (0, 0, 0))
    indexes = "select indrelid::regclass::text from pg_index where indrelid in ('{}'::regclass) and indisunique"
    names = "'::regclass, '".join(f"marts.{name}" for name in KINDS)
    assert len(project.rows("warehouse", indexes.format(names))) == len(KINDS)
    granted = "select count(*) from information_schema.role_table_grants where grantee = 'looker'"
    assert project.rows("warehouse", granted) == [(len(KINDS),)]
    # the views depend on the key itself
    write_all(project, "'order_id'", KEYED_ANEW)
    with project.connect("warehouse") as connection:
        connection.execute(
            "create role ana; create schema ana_marts; create table ana_marts._tidemark_models (); "
            "create view ana_marts.own as select order_id from marts.k_t; alter view ana_marts.own owner to ana;"
            'create view looks."On it" as select order_id from ana_marts.own'
        )
    said = refused(project, *KINDS, "--full-refresh")
    for line in (
        "view ana_marts.own (in a developer's schema, owner ana)",
        "view looks.k_t (owner ",
        'drop view looks."On it"; drop view ana_marts.own;',
    ):
        assert line in said
    assert project.rows("warehouse", smallest) == [(orders,)]
    with project.connect("warehouse") as connection:
        for advice in {line.split(" after: ")[1] for line in said.splitlines() if " after: " in line}:
            connection.execute(advice.encode())
        connection.execute("drop schema looks, ana_marts cascade; drop role ana")
    project.build("--full-refresh")
    assert written(project.build("--full-refresh")) == dict.fromkeys(KINDS, (0, 0, 0))


@pytest.mark.long
def test_a_broken_key_and_another_partition_column_are_refused_with_advice_that_works(project):
    for name in KINDS:
        (models(project) / f"{name}.sql").unlink(missing_ok=True)
    write(project, "k", IN_PLACE, ONE)
    write(project, "p", PARTITIONED + BY_DAY, ONE)
    project.build()
    with project.connect("warehouse") as connection:
        ((index,),) = connection.execute(
            "select indexrelid::regclass::text from pg_index where indrelid = 'marts.k'::regclass"
        ).fetchall()
        connection.execute(f"drop index {index}; insert into marts.k select * from marts.k limit 3")
    assert 'k" has no unique index on (order_id), and has 2 rows with (' in refused(project, "k")
    done = written(project.build("--full-refresh", "--select", "k"))["k"]
    assert done[2] - done[0] == 3
    by_time = BY_DAY.replace("'ordered_on'", "'updated_at'")
    for config, query, why in (
        (
            by_time,
            ONE.replace("status", "updated_at, status"),
            "is partitioned by ordered_on (date), the model by updated_at (",
        ),
        (
            by_time.replace("month", "year"),
            ONE.replace("status", "updated_at, status"),
            "has partitions with some of the year",
        ),
    ):
        write(project, "p", PARTITIONED + config, query)
        assert why in refused(project, "p", "--full-refresh")
        with project.connect("warehouse") as connection:
            connection.execute("drop table if exists marts.p_old; alter table marts.p rename to p_old")
        project.build("--select", "p")
        assert project.rows(
            "warehouse", "select (select count(*) from marts.p) - (select count(*) from marts.p_old)"
        ) == [(0,)]
        assert written(project.build("--select", "p"))["p"] == (0, 0, 0)


LONG = "sales_of_all_shops_with_every_line_and_its_order_of_"
WIDE = "ä" * 31


@pytest.mark.long
def test_names_that_begin_alike_or_have_wide_letters_do_not_collide(project):
    for path in models(project).glob("*.sql"):
        path.unlink()
    names = [f"{LONG}{end}" for end in ("january", "february")]
    for name in names:
        write(project, name, PARTITIONED + BY_DAY, ONE)
    indexes = ", indexes=[{'columns': ['status']}, {'columns': ['line']}]"
    write(project, WIDE, IN_PLACE + indexes, ONE)
    unique = (
        "materialized='in_place_materialized_view', schema='marts', indexes=[{'columns': ['order_id'], 'unique': true}]"
    )
    for end in "xy":
        (models(project) / f"{LONG}{end}.sql").write_text(f"{{{{ config({unique}) }}}} select order_id from {ORDERS}")
    project.build()
    ((orders,),) = project.rows("warehouse", "select count(*) from raw.orders")
    partitions = (
        "select inhparent::regclass::text, count(*), count(*) filter (where relname ~ 'default$') "
        "from pg_inherits inner join pg_class on pg_class.oid = inhrelid where relkind = 'r' "
        f"and inhparent::regclass::text like 'marts.{LONG}%' group by 1 order by 1"
    )
    (first, second) = project.rows("warehouse", partitions)
    assert first[1:] == second[1:]
    assert first[2] == 1
    for name in (*names, WIDE):
        assert project.rows("warehouse", f'select count(*) from marts."{name}"') == [(orders,)]
    assert len(project.rows("warehouse", f"select from pg_index where indrelid = 'marts.{WIDE}'::regclass")) == 3
    # partitions with other names are found by their bounds
    with project.connect("warehouse") as connection:
        connection.execute(
            "do $$ declare part record; begin for part in select inhrelid::regclass as name, row_number() over () as n "
            f"from pg_inherits inner join pg_class on pg_class.oid = inhrelid where relkind = 'r' "
            f"and inhparent = 'marts.{names[0]}'::regclass loop "
            "execute format('alter table %s rename to old_%s', part.name, part.n); end loop; end $$"
        )
    assert written(project.build("--full-refresh", "--select", *names)) == dict.fromkeys(names, (0, 0, 0))
    # materialized views that change in one run are set aside under different names
    for end in "xy":
        (models(project) / f"{LONG}{end}.sql").write_text(
            f"{{{{ config({unique}) }}}} select order_id, status from {ORDERS}"
        )
    project.build("--select", *(f"{LONG}{end}" for end in "xy"))
    too_long = "b" * 40 + "ä" * 20
    write(project, too_long, IN_PLACE, ONE)
    assert "has a name of 80 bytes, but PostgreSQL keeps 63" in refused(project, too_long)
