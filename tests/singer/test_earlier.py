"""Rows of earlier runs equal the source, whatever changed them without a new stamp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.singer.conftest import INCREMENTAL

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe


# migrations, each on a separate table between two runs; none changes a stamp
MIGRATIONS = {
    "volatile_dropped": "add x uuid not null default gen_random_uuid(); alter table {} alter x drop default",
    "const_dropped": "add x text not null default 'basic'; alter table {} alter x drop default",
    "rewritten": "add x text default 'basic'; alter table {} alter x drop default; alter table {} alter id type bigint",
    "vacuumed": "add x text default 'basic'; alter table {} alter x drop default; vacuum full {}",
    "expression_dropped": "add x int generated always as (amount * 2) stored; alter table {} alter x drop expression",
    "identity_dropped": "add x bigint generated always as identity; alter table {} alter x drop identity",
    "backfilled": "add x text; update {} set x = 'basic' where id > 2",
    "backfilled_and_set": "add x text; update {} set x = 'basic'; alter table {} alter x set not null",
    "composite_of_nulls": "add x pair default row(null, null); alter table {} alter x drop default; vacuum full {}",
    "multiplied": "alter amount type bigint using amount * 100",
    "same_type": "alter note type text using upper(note)",
    "set_and_required": "alter note set not null; update {} set note = 'set'",
    "attribute_added": "alter id set statistics 10; alter type kept_{} add attribute c int",
    "label_renamed": "alter id set statistics 10; alter type mood_{} rename value 'ok' to 'fine'",
    "label_added": "alter id set statistics 10; alter type mood_{} add value 'new'",
    "restored": "add x int; create table copy_{} as table {}; truncate {}; "
    "insert into {} select id, amount, 'restored', feels, kept, updated_at from copy_{}",
    "moved": "alter id set statistics 10; vacuum full {}",
    "virtual": "add x int generated always as (amount * 3) virtual",
    "masked": "add x text default 'secret'",
}


PARTED = """
    create table parted (id int, updated_at timestamptz default now() - interval '1 day', primary key (id, updated_at))
        partition by range (updated_at);
    create table recent partition of parted for values from (current_date - 30) to ('infinity');
    create table ancient (like parted including all);
    insert into parted values (1); insert into ancient values (2, now() - interval '40 days');
    create view seen as select id, updated_at from parted;
"""


@pytest.mark.parametrize("use_copy", [True, pytest.param(False, marks=pytest.mark.long)], ids=["chunks", "records"])
def test_old_rows_equal_the_source_whatever_a_migration_did(pipe, use_copy):
    pipe.tap |= {"use_copy": use_copy, "masks": {"public-masked": {"x": "redact"}}}
    pipe.do("create type pair as (a int, b text);" + PARTED)
    for name in MIGRATIONS:
        pipe.do(f"create type mood_{name} as enum ('sad', 'ok'); create type kept_{name} as (a int, b text)")
        pipe.do(
            f"create table {name} (id int primary key, amount int, note text, feels mood_{name}, kept kept_{name}, "
            "updated_at timestamptz default now() - interval '1 day'); "
            f"insert into {name} select n, n * 10, 'note', 'ok'::mood_{name}, row(n, 'x')::kept_{name} "
            "from generate_series(1, 5) n"
        )
    streams = {f"public-{name}": INCREMENTAL for name in MIGRATIONS}
    streams |= {
        "public-parted": INCREMENTAL,
        "public-seen": {**INCREMENTAL, "table-key-properties": ["id"]},
    }
    # a mask of a column that does not exist yet
    masks = pipe.tap.pop("masks")
    state = pipe.sync(streams).ok().state
    pipe.tap["masks"] = masks
    for name, statements in MIGRATIONS.items():
        if not (name == "virtual" and not has_virtual_columns(pipe)):
            for statement in f"alter table {name} {statements.replace('{}', name)}".split("; "):
                pipe.do(statement)
    pipe.do("alter table parted attach partition ancient for values from ('2000-01-01') to (current_date - 30)")
    pipe.do("create or replace view seen as select id, updated_at, id * 2 as twice from parted")
    synced = pipe.sync(streams, state).ok()
    again = {
        line.split("Reading public-")[1].split(" ")[0] for line in synced.tap_log.splitlines() if "from its beg" in line
    }
    # an unused enum label, moved but unchanged rows, and one value for all rows need no new read
    assert not again & ({"label_added", "moved"} | ({"const_dropped"} if use_copy else set()))
    # records of a view lack the key that metadata names
    for name in ("parted", *(["seen"] if use_copy else []), *MIGRATIONS):
        with pipe.source() as connection:
            there = connection.execute(f"select t.* from {name} t order by id")
            names = [column.name for column in there.description]
            fields = ", ".join("'[redacted]'" if (name, x) == ("masked", "x") else f"{x}::text" for x in names)
            there = connection.execute(f"select {fields} from {name} order by id").fetchall()
        assert (name, pipe.rows(f"select {', '.join(f'{x}::text' for x in names)} from raw.{name} order by id")) == (
            name,
            there,
        )
    # after that, nothing is read again
    assert "from its beginning" not in pipe.sync(streams, synced.state).ok().tap_log


def has_virtual_columns(pipe: Pipe) -> bool:
    with pipe.source() as connection:
        return connection.info.server_version >= 180_000


VIEWS = """
    create function doubled(int) returns int language sql as 'select $1 * 2';
    create table base (id int primary key, n int, updated_at timestamptz not null default now() - interval '1 day');
    insert into base (id, n) values (1, 1), (2, 2); create table part_2 (like base including defaults);
    create table restored (like base including all); insert into restored table base;
    create table part (like base including defaults) partition by list (id); insert into part_2 (id, n) values (2, 2);
    create table part_1 partition of part for values in (1); insert into part (id, n) values (1, 1);
    create view inside as select id, n, updated_at from base; create view replaced as select * from inside;
    create view attached as select * from part; create view again as select * from restored;
    create view calls as select id, doubled(n) as n, updated_at from base
"""


def test_a_view_is_read_again_when_anything_it_depends_on_changed(pipe):
    pipe.do(VIEWS)
    names = ("replaced", "attached", "again", "calls")
    streams = {f"public-{name}": {**INCREMENTAL, "table-key-properties": ["id"]} for name in names}
    state = pipe.sync(streams).ok().state
    pipe.do("create or replace view inside as select id, n + 10 as n, updated_at from base")
    pipe.do("alter table part attach partition part_2 for values in (2)")
    pipe.do("truncate restored; insert into restored select id, n + 100, updated_at from base")
    pipe.do("create or replace function doubled(int) returns int language sql as 'select $1 * 20'")
    synced = pipe.sync(streams, state).ok()
    for name in names:
        with pipe.source() as connection:
            there = connection.execute(f"select id, n from {name} order by id").fetchall()
        assert (name, pipe.rows(f"select id, n from raw.{name} order by id")) == (name, there)
    assert "function public.doubled(integer), which it calls, was replaced" in synced.tap_log
    assert "from its beginning" not in pipe.sync(streams, synced.state).ok().tap_log


def test_a_renamed_enum_label_is_updated_in_every_type_that_uses_it(pipe):
    pipe.do(
        """
        create type mood as enum ('bad', 'ok'); create type moods as range (subtype = mood);
        create type told as (feels mood, since date);
        create table a (id int primary key, range moods default '[bad,ok]', several mood[] default '{ok}',
            told told default row('ok', '2026-01-01'), updated_at timestamptz default now() - interval '1 day');
        insert into a values (1)
        """
    )
    state = pipe.sync({"public-a": INCREMENTAL}).ok().state
    pipe.do("""alter type mood rename value 'ok' to 'o"k\\, it is'""")
    pipe.sync({"public-a": INCREMENTAL}, state).ok()
    columns = "range::text, several::text, told::text"
    with pipe.source() as connection:
        assert pipe.rows(f"select {columns} from raw.a") == connection.execute(f"select {columns} from a").fetchall()
