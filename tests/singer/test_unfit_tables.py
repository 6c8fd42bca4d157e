"""Tables without a key, and tables too wide for the warehouse, are named with what to do."""

from __future__ import annotations

from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_sources import ORDERS


def test_a_table_with_inheriting_tables_is_read_with_them_and_has_no_key(pipe):
    pipe.do(ORDERS + "create table archive () inherits (orders); insert into archive select * from orders where id < 4")
    pipe.sync({"public-orders": FULL_TABLE}).ok()
    assert pipe.rows("select count(*), count(distinct id) from raw.orders") == [(5003, 5000)]
    error = pipe.sync({"public-orders": INCREMENTAL}).refused("key_missing")
    assert "has no primary key (tables that inherit from it are read with it, and may repeat its key (id))" in error


UNKEYED = "create table {} (id int{}, updated_at timestamptz default now())".format


# the table, and the statement that gives it a key
LACKS = {
    "nullable": (UNKEYED("nullable", " unique"), 'ALTER TABLE "public"."nullable" ALTER COLUMN "id" SET NOT NULL'),
    "unproven": (
        UNKEYED("unproven", " unique") + "; alter table unproven add constraint known not null id not valid",
        'ALTER TABLE "public"."unproven" VALIDATE CONSTRAINT "known"',
    ),
    "heir": (
        UNKEYED("parent", " primary key") + "; create table heir () inherits (parent)",
        'ALTER TABLE "public"."heir" ADD PRIMARY KEY ("id")',
    ),
    "partial": (UNKEYED("partial", "") + "; create unique index part on partial (id) where id > 0", None),
    "expressed": (UNKEYED("expressed", "") + "; create unique index next on expressed ((id + 1))", None),
    "bare": (UNKEYED("bare", ""), None),
}


def test_the_error_says_why_a_table_has_no_key_and_its_statement_gives_it_one(pipe):
    for made, _ in LACKS.values():
        pipe.do(made)
    for name in LACKS:
        pipe.do(f"insert into {name} (id) values (1)")
    streams = {f"public-{name}": INCREMENTAL for name in LACKS}
    error = pipe.sync(streams).refused("key_missing")
    for why in (
        "nullable has no primary key (its unique index nullable_id_key would do if id could not be null)",
        "unproven has no primary key (its unique index unproven_id_key would do if constraint known were not NOT",
        "heir has no primary key (it inherits from public.parent, whose primary key (id) does not hold for its rows)",
        "partial has no primary key (its unique index part covers only some of its rows)",
        "expressed has no primary key (its unique index next is on an expression)",
        "bare has no primary key, so",
    ):
        assert why in error
    shown = {name: statement for name, (_, statement) in LACKS.items() if statement}
    for statement in shown.values():
        assert statement in error
        pipe.do(statement)
    pipe.sync({f"public-{name}": INCREMENTAL for name in shown}).ok()
    assert [pipe.rows(f"select id from raw.{name}") for name in shown] == [[(1,)]] * len(shown)


def test_a_deferrable_key_and_one_without_overlaps_identify_rows(pipe):
    pipe.do(
        "create table deferred (id int primary key deferrable, n int, updated_at timestamptz not null default now());"
        "insert into deferred values (1, 1), (2, 2);"
        "create table spans (id int4range, span daterange, updated_at timestamptz not null default now(),"
        " primary key (id, span without overlaps));"
        "insert into spans values ('[1,2)', '[2026-01-01,2026-02-01)'), ('[1,2)', '[2026-02-01,2026-03-01)')"
    )
    streams = {"public-deferred": INCREMENTAL, "public-spans": INCREMENTAL}
    state = pipe.sync(streams).ok().state
    # keys that swap places, which only a deferrable key allows
    pipe.do(
        "begin; set constraints all deferred; update deferred set id = 3 - id, updated_at = clock_timestamp(); commit;"
    )
    pipe.sync(streams, state).ok()
    assert pipe.rows("select id, n from raw.deferred order by id") == [(1, 2), (2, 1)]
    assert pipe.rows("select count(*) from raw.spans") == [(2,)]


def test_a_table_too_wide_for_the_metadata_columns_is_refused_by_name_and_others_are_loaded(pipe):
    def wide(name: str, count: int, column: str) -> None:
        columns = ", ".join(f"c{number} {column}" for number in range(1, count))
        pipe.do(f"create table {name} (id bigint primary key, {columns}); insert into {name} (id) values (1)")

    wide("sure", 1000, "bigint not null default 1")
    wide("fits", 980, "bigint not null default 1")
    wide("filled", 1000, "bigint default 1")
    wide("many", 1593, "boolean")
    wide("most", 1592, "boolean")
    pipe.do("create table bare (); insert into bare default values")
    streams = {f"public-{name}": FULL_TABLE for name in ("bare", "filled", "fits", "many", "most", "sure")}
    done = pipe.sync(streams)
    assert (done.tap_status, done.target_status) == (1, 1)
    assert (
        "public.sure has 1,000 selected columns. With the 8 that the warehouse adds, they take 8,200 bytes or more"
        in done.tap_log
    )
    assert "public.many has 1,593 selected columns, and the warehouse adds 8; a table can have 1,600" in done.tap_log
    assert "public.bare has no column to read" in done.tap_log
    assert "row is too big: size 8200, maximum size 8160; in the source it fits" in done.target_log
    assert done.codes == {"limit_exceeded"}
    made = {name for (name,) in pipe.rows("select relname from pg_class where relnamespace = 'raw'::regnamespace")}
    assert not {"sure", "many", "bare"} & made
    assert [pipe.rows(f"select count(*) from raw.{name}") for name in ("filled", "fits", "most")] == [
        [(0,)],
        [(1,)],
        [(1,)],
    ]
