"""Columns that swap names, and changed keys: loaded right by the run, or after the error's advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.singer.advice import run_until_well
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_drift import TABLE

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe

KEY = "@ drop constraint orders_pkey, alter id set not null, add primary key (id)"
# the steps of a migration, each followed by a run; @ is ALTER TABLE; and whether runs handle it without advice
SWAPS: dict[str, tuple[list[str], bool]] = {
    "key, at once": (
        [
            (
                "@ add new_id bigint; update orders set new_id = id; "
                f"@ rename id to old; @ rename new_id to id; {KEY}, drop old"
            )
        ],
        True,
    ),
    "key, old one kept": (
        [
            (
                "@ add new_id bigint; update orders set new_id = id; @ rename id to old; "
                f"@ rename new_id to id; {KEY}, alter old drop not null"
            ),
            "@ drop old",
        ],
        True,
    ),
    "key, step by step": (
        [
            "@ add new_id bigint",
            "update orders set new_id = id",
            f"@ rename id to old; @ rename new_id to id; {KEY}",
            "@ alter old drop not null; @ drop old",
        ],
        True,
    ),
    "amount, at once": (
        [
            (
                "@ add wide numeric(20,2); update orders set wide = amount; "
                "@ rename amount to old; @ rename wide to amount; "
                "@ drop old"
            )
        ],
        True,
    ),
    "amount, with a run between": (
        [
            "@ add wide numeric(20,2); update orders set wide = amount",
            ("@ rename amount to old; @ rename wide to amount; @ alter old drop not null"),
            "@ drop old",
        ],
        True,
    ),
    "two change names": (
        [
            "@ add b varchar(10) default 'b'",
            "@ rename note to c; @ rename b to note; @ rename c to b",
        ],
        True,
    ),
    "dropped and made again, as it was": (
        [
            (
                "@ add other varchar(10); update orders set other = note; @ drop note; "
                "@ add note varchar(10); update orders set note = other"
            )
        ],
        True,
    ),
    "dropped and made again, with other values": (
        ["@ drop note; @ add note varchar(10) default 'other'"],
        False,
    ),
    "dropped, and later made again": (
        ["@ drop note", "@ add note varchar(10)"],
        False,
    ),
    "a dropped one's name taken by one that was there": (
        [
            "@ add b varchar(10) default 'b'",
            "@ drop note; @ rename b to note",
        ],
        False,
    ),
    "key numbered anew": (
        [
            (
                "@ add new_id bigint; update orders set new_id = id + 100; @ drop id; "
                "@ rename new_id to id; @ add primary key (id)"
            )
        ],
        False,
    ),
    "key becomes a uuid": (
        [("@ drop id; @ add id uuid default gen_random_uuid(); @ add primary key (id)")],
        False,
    ),
    "key with a new column": (
        [("@ add tenant int not null default 7; @ drop constraint orders_pkey, add primary key (tenant, id)")],
        False,
    ),
    "key of other columns, renamed": (
        [
            "@ add code int; update orders set code = id * 2, updated_at = now()",
            (
                "@ rename code to number; @ alter number set not null; "
                "@ drop constraint orders_pkey, add primary key (number)"
            ),
        ],
        False,
    ),
    "key renamed": (["@ rename id to number; @ rename number to id"], True),
    "all retyped": (
        ["@ alter note type int using id; @ alter amount type date using now()::date"],
        False,
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("method", [INCREMENTAL, FULL_TABLE], ids=["incremental", "whole"])
def test_columns_that_swap_names_are_loaded_right_or_the_advice_leads_there(pipe, method):
    names = {f"orders_{number}": each for number, each in enumerate(SWAPS.values())}
    for name in names:
        pipe.do(TABLE.format(t=name))
    streams = {f"public-{name}": method for name in names}
    state = pipe.sync(streams).ok().state
    with pipe.warehouse() as connection:
        for name in names:
            # rows that the source deleted keep their values
            connection.execute(f"insert into raw.{name} (id, note, amount) values (1000, 'gone', 1)")
    refused: dict[str, list[str]] = {name: [] for name in names}
    for step in range(max(len(steps) for steps, _ in SWAPS.values())):
        for name, (steps, _) in names.items():
            if step < len(steps):
                pipe.do(steps[step].replace("@", "alter table orders").replace("orders", name))
            pipe.do(f"update {name} set updated_at = now() where ctid = (select min(ctid) from {name})")
        state, met = run_until_well(pipe, streams, state)
        for name in names:
            refused[name] += [error for error in met if f"{name} " in error or f"{name}." in error]
    for (label, (_, alone)), name in zip(SWAPS.items(), names, strict=True):
        assert (label, bool(refused[name])) == (label, not alone)
        assert_all_are_there(pipe, name)


def assert_all_are_there(pipe: Pipe, name: str) -> None:
    with pipe.source() as connection:
        cursor = connection.execute(f"select * from {name}")
        names = [column.name for column in cursor.description or ()]
        fields = ", ".join(f'"{column}"::text' for column in names)
        there = connection.execute(f"select {fields} from {name}").fetchall()
    here = pipe.rows(f"select {fields} from raw.{name}")
    assert (name, sorted(set(there) - set(here))) == (name, [])
