"""The advice of `tidemark check` on large raw tables: given when it matters, with the statement to run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidemark.inspect.check.finding import Level
from tidemark.inspect.check.large_tables import LargeTable, compression, vacuum

SETTINGS = {
    "autovacuum_vacuum_threshold": "50",
    "autovacuum_vacuum_scale_factor": "0.2",
    "autovacuum_vacuum_insert_threshold": "1000",
    "autovacuum_vacuum_insert_scale_factor": "0.2",
    "autovacuum_freeze_max_age": "200000000",
}
FINE = LargeTable("orders", "orders", 2**36, 200_000_000, live=200_000_000)
SCALE = 'ALTER TABLE "raw"."orders" SET (autovacuum_vacuum_scale_factor = 0.01)'


@pytest.mark.parametrize(
    ("table", "level", "what", "fix"),
    [
        pytest.param(
            replace(FINE, dead=30_000_000),
            Level.warning,
            "has 30,000,000 dead rows, 13% of all, and autovacuum waits for 40,000,050",
            (SCALE,),
            id="vacuum waits for long",
        ),
        pytest.param(
            replace(FINE, dead=100_000_000, live=100_000_000),
            Level.warning,
            "has 100,000,000 dead rows, 50% of all",
            ('VACUUM "raw"."orders"', SCALE),
            id="half is dead",
        ),
        pytest.param(
            replace(FINE, inserted=9_000_000),
            Level.note,
            "has 9,000,000 rows that were inserted since its last vacuum",
            ('ALTER TABLE "raw"."orders" SET (autovacuum_vacuum_insert_scale_factor = 0.01)',),
            id="only inserts",
        ),
        pytest.param(
            replace(FINE, frozen_age=170_000_000),
            Level.warning,
            "has rows that are 170,000,000 transactions old: at 200,000,000 (autovacuum_freeze_max_age)",
            ('VACUUM (FREEZE) "raw"."orders"',),
            id="to be frozen",
        ),
        pytest.param(
            replace(FINE, options={"fillfactor": "90"}),
            Level.note,
            "No update of it is one: each sets _tidemark_loaded_xid, which is indexed",
            ('ALTER TABLE "raw"."orders" RESET (fillfactor)',),
            id="fillfactor",
        ),
    ],
)
def test_a_large_table_gets_advice_with_its_reason_and_the_statement(table, level, what, fix):
    (found,) = vacuum(table, "raw", SETTINGS)
    assert (found.level, found.fix) == (level, fix)
    assert what in found.what
    # nobody needs it for a small one
    assert not list(vacuum(replace(table, bytes=2**29), "raw", SETTINGS))


def test_a_large_table_that_autovacuum_cares_for_gets_no_advice():
    own = {"autovacuum_vacuum_scale_factor": "0.01", "autovacuum_vacuum_insert_scale_factor": "0.01"}
    busy = replace(FINE, dead=1_900_000, inserted=1_900_000, frozen_age=50_000_000, options=own)
    assert not list(vacuum(busy, "raw", SETTINGS))
    # the server's limit, from PostgreSQL 18 on
    limited = replace(busy, options={}, inserted=0)
    assert not list(vacuum(limited, "raw", {**SETTINGS, "autovacuum_vacuum_max_threshold": "2000000"}))


@pytest.mark.parametrize(("has_lz4", "other"), [(True, "lz4"), (False, "off")])
def test_pglz_for_the_wal_is_advised_against_where_it_slows_merges_down(has_lz4, other):
    # `on` means pglz
    for method in ("on", "pglz"):
        (found,) = compression(method, has_lz4)
        assert (found.level, found.fix[0]) == (Level.note, f"ALTER SYSTEM SET wal_compression = {other}")
    assert not [*compression("off", has_lz4), *compression("lz4", has_lz4), *compression("zstd", has_lz4)]
