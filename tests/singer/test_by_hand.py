"""A raw table that someone altered by hand: the run notices it and fixes it, or its error says how."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.singer.advice import run_until_well
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_drift import TABLE

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe, Synced

TRIGGER = """
    create function raw.swallow() returns trigger language plpgsql as 'begin new.note := ''not so''; return {}; end';
    create trigger swallow before insert or update on raw.orders for each row execute function raw.swallow();
"""
METADATA = ("_sdc_extracted_at", "_sdc_received_at", "_sdc_batched_at", "_sdc_deleted_at", "_sdc_sequence")
# changes of raw.orders, each on a separate table, with the error and its code; None if the run fixes it by itself
BY_HAND = {
    "column dropped": (
        "alter table raw.orders drop note",
        "raw.orders.note was loaded before and is gone",
        "warehouse_altered",
    ),
    "column renamed": (
        "alter table raw.orders rename note to remark",
        "raw.orders.note was loaded before and is gone",
        "warehouse_altered",
    ),
    "values cut": (
        "alter table raw.orders alter amount type integer",
        "raw.orders.amount was altered in the warehouse",
        "warehouse_altered",
    ),
    "values cut and put back": (
        "alter table raw.orders alter amount type numeric(4,1)",
        "raw.orders.amount was altered in the warehouse, and is numeric(4,1)",
        "warehouse_altered",
    ),
    "other type": (
        "alter table raw.orders alter note type bytea using 'x'",
        "raw.orders.note was altered in the warehouse",
        "warehouse_altered",
    ),
    "wider type": ("alter table raw.orders alter note type text, alter amount type numeric", None, None),
    "key dropped": (
        "alter table raw.orders drop constraint orders_pkey",
        "no unique index on the stream's key (id)",
        "key_changed",
    ),
    "key deferrable": (
        "alter table raw.orders drop constraint orders_pkey, add primary key (id) deferrable",
        "no unique index on the stream's key (id)",
        "key_changed",
    ),
    "key dropped, rows doubled": (
        "alter table raw.orders drop constraint orders_pkey; insert into raw.orders select * from raw.orders",
        "no unique index on the stream's key (id)",
        "key_changed",
    ),
    "metadata dropped": (
        f"alter table raw.orders {', '.join(f'drop {name}' for name in METADATA)}, drop _tidemark_loaded_xid",
        None,
        None,
    ),
    "metadata altered": (
        # PostgreSQL refuses to alter the column while the index's condition has it
        (
            "drop index raw.orders__tidemark_loaded_xid_idx; "
            "alter table raw.orders alter _sdc_extracted_at type text, alter _tidemark_loaded_xid type text"
        ),
        "_sdc_extracted_at was altered in the warehouse",
        "warehouse_altered",
    ),
    "a view": (
        "alter table raw.orders rename to o; create view raw.orders as select * from raw.o",
        "raw.orders is a view",
        "warehouse_altered",
    ),
    "an empty table": (
        "alter table raw.orders rename to o; create table raw.orders (like raw.o including all)",
        "holds no rows of this source",
        "state_ahead",
    ),
    "a bare table": ("alter table raw.orders rename to o; create table raw.orders (id int)", "", "warehouse_altered"),
    "truncated": ("truncate raw.orders", "holds no rows of this source", "state_ahead"),
    "trigger swallows": (TRIGGER.replace("{}", "null"), "trigger of its own (swallow)", "warehouse_altered"),
    "trigger alters": (TRIGGER.replace("{}", "new"), "trigger of its own (swallow)", "warehouse_altered"),
    "rule": (
        "create rule nothing as on insert to raw.orders do instead nothing",
        "raw.orders has a rule, nothing",
        "warehouse_altered",
    ),
    "not null": ("alter table raw.orders alter note set not null", "not-null constraint", "not_null_violation"),
    "check": ("alter table raw.orders add check (amount < 50)", "check constraint", "constraint_violation"),
    "unique": ("alter table raw.orders add unique (amount)", "unique constraint", "constraint_violation"),
}


@pytest.mark.parametrize(
    "method", [INCREMENTAL, pytest.param(FULL_TABLE, marks=pytest.mark.long)], ids=["incremental", "whole"]
)
def test_a_raw_table_altered_by_hand_is_noticed_and_the_advice_fixes_it(pipe, method):
    names = {f"orders_{number}": each for number, each in enumerate(BY_HAND.values())}
    for name in names:
        pipe.do(TABLE.format(t=name))
    streams = {f"public-{name}": method for name in names}
    state = pipe.sync(streams).ok().state
    for name, (statements, _, _) in names.items():
        with pipe.warehouse() as connection:
            own = statements.replace("orders", name).replace("raw.swallow", f"raw.swallow_{name}")
            connection.execute(re.sub(r"\bo\b", f"o_{name}", own))
        pipe.do(f"update {name} set note = 'NEW', updated_at = now() where id = 1")
        pipe.do(f"insert into {name} values (4, null, 99.5), (5, 'A', 99.5)")
    # of each stream's first error
    codes: dict[str, str] = {}

    def told(synced: Synced, _: list[str]) -> None:
        for failure in synced.failures:
            if "stream" in failure:
                codes.setdefault(failure["stream"], failure["code"])

    state, met = run_until_well(pipe, streams, state, told=told)
    for name, (_, says, code) in names.items():
        errors = [error for error in met if re.search(rf"\b{name}\b", error)]
        if says is None:
            assert not errors
        elif method is INCREMENTAL:
            assert errors, name
            assert says.replace("raw.orders", f"raw.{name}") in errors[0]
            assert codes[f"public-{name}"] == code
        assert_same(pipe, name)
        assert pipe.rows(f"select count(*) from raw.{name} where _tidemark_loaded_xid is null") == [(0,)]
        pipe.do(f"update {name} set note = 'newer', updated_at = now() where id = 2")
    # it stays that way
    pipe.sync(streams, state).ok()
    for name in names:
        assert_same(pipe, name)


def assert_same(pipe: Pipe, name: str) -> None:
    with pipe.source() as connection:
        there = connection.execute(f"select id, note, amount::numeric, updated_at from {name} order by id").fetchall()
    here = pipe.rows(f"select id, note, amount::numeric, updated_at from raw.{name} order by id")
    assert (name, here) == (name, there)
