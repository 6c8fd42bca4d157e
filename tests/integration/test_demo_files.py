"""`tidemark demo remove` and `add`: what they change in the user's files and in the warehouse, and what they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.conftest import AS_CLONED
from tests.integration.stages import make_checkout
from tidemark.project.user_files import is_users

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout

EXTRACTORS = "extract/extractors.meltano.yml"
RELATIONS = """
    select nspname || '.' || relname from pg_class inner join pg_namespace on pg_namespace.oid = relnamespace
    where relkind in ('r', 'p', 'v', 'm') and not relispartition and relname !~ '^_tidemark'
        and nspname in ('raw', 'staging', 'intermediate', 'marts')
"""


@pytest.fixture
def clone() -> Iterator[Checkout]:
    yield from make_checkout()


@pytest.fixture(scope="module")
def built() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


def contents(root: Path) -> dict[str, bytes]:
    """Return the user's files, and those of the demo."""
    files = {path.relative_to(AS_CLONED).as_posix() for path in AS_CLONED.rglob("*") if path.is_file()}
    files |= {path.relative_to(root).as_posix() for path in (root / "demo").rglob("*") if path.is_file()}
    return {name: (root / name).read_bytes() for name in sorted(files)}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_shop_leaves_the_users_files_and_comes_back_byte_for_byte(clone):
    before = contents(clone.root)
    said = clone.tidemark("demo", "remove")
    assert f"{EXTRACTORS}: removed public-customers, public-products, public-orders, public-order_items" in said
    assert "transform/packages.yml: removed the package ../demo/shop" in said
    assert "tidemark demo add" in said
    changed = {name for name, content in contents(clone.root).items() if content != before[name]}
    files = ("packages.yml", "package-lock.yml")
    assert changed == {EXTRACTORS, "orchestrate/schedules.json", *(f"transform/{name}" for name in files)}
    assert all(is_users(name) for name in changed)
    # without `select`, Meltano would read every table
    (tap,) = yaml.safe_load((clone.root / EXTRACTORS).read_text())["plugins"]["extractors"]
    assert tap == {"name": "tap-postgres", "variant": "tidemark", "select": []}
    assert clone.tidemark("schedules") == (clone.root / "orchestrate/schedules.json").read_text()
    listed = clone.dbt("--quiet", "list", "--resource-type", "model")
    assert (listed.returncode, "shop" in listed.stdout) == (0, False), listed.stdout

    assert "nothing to remove" in clone.tidemark("demo", "remove")
    refused = clone.refusal("pipeline")
    for word in ("No stream is selected", "tidemark onboard", "tidemark source add", "tidemark demo add", "tables.md"):
        assert word in refused

    clone.tidemark("demo", "add")
    assert contents(clone.root) == before
    assert "nothing to add" in clone.tidemark("demo", "add")


def test_what_the_user_wrote_beside_the_shop_stays(clone):
    path, packages = clone.root / EXTRACTORS, clone.root / "transform/packages.yml"
    edit(
        path,
        "        - public-orders.*\n",
        "        # ours\n        - public-suppliers.*\n        - public-orders.*\n",
    )
    edit(path, "        public-orders: *", "        public-suppliers: *incremental\n        public-orders: *")
    edit(path, "variant: tidemark\n", "variant: tidemark\n      config: {max_parallel: 2} # by hand\n")
    edit(
        packages,
        "  - local: ../demo/shop\n",
        "  - local: ../demo/shop\n  # a package of ours\n  - local: ../ours\n",
    )
    (clone.root / "ours").mkdir()
    (clone.root / "ours" / "dbt_project.yml").write_text("name: ours\nversion: '1.0'\n")
    edited = yaml.safe_load(path.read_text())
    clone.tidemark("demo", "remove")
    text = path.read_text()
    (tap,) = yaml.safe_load(text)["plugins"]["extractors"]
    assert tap["select"] == ["public-suppliers.*"]
    assert tap["metadata"] == {
        "public-suppliers": {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}
    }
    assert "config: {max_parallel: 2} # by hand" in text
    assert "        # ours\n        - public-suppliers.*\n" in text
    assert "# A stream that is not named here is read in full in each run." in text
    assert packages.read_text().count("# a package of ours\n  - local: ../ours") == 1
    clone.tidemark("demo", "add")
    (tap,) = yaml.safe_load(path.read_text())["plugins"]["extractors"]
    (was,) = edited["plugins"]["extractors"]
    assert sorted(tap["select"]) == sorted(was["select"])
    assert {**tap, "select": []} == {**was, "select": []}


def test_a_file_that_cannot_be_edited_is_refused_before_anything_changes(clone):
    path = clone.root / EXTRACTORS
    path.write_text("plugins: [\n")
    before = contents(clone.root)
    assert EXTRACTORS in clone.refusal("demo", "remove")
    assert contents(clone.root) == before


@pytest.mark.long
def test_the_shops_tables_are_dropped_if_the_user_says_so_and_nothing_else(built):
    with built.connect("warehouse") as connection:
        connection.execute(
            "create table raw.theirs (); create view public.reads as select order_id from marts.fct_sales"
        )
    there = {name for (name,) in built.rows("warehouse", RELATIONS)}
    before = contents(built.root)
    assert "no terminal" in built.refusal("demo", "remove", "--drop-marts")
    refused = built.refusal("demo", "remove", "--drop-marts", "--yes")
    assert "reads reads marts.fct_sales" in refused
    assert {name for (name,) in built.rows("warehouse", RELATIONS)} == there
    assert contents(built.root) == before
    with built.connect("warehouse") as connection:
        connection.execute("drop view public.reads")

    said = built.tidemark("demo", "remove", "--drop-marts", "--yes")
    gone = there - {name for (name,) in built.rows("warehouse", RELATIONS)}
    assert there - gone == {"raw.theirs"}
    assert all(f" {name}\n" in said for name in gone), said
    assert {"raw.orders", "staging.stg_orders", "intermediate.customers_snapshot", "marts.fct_sales"} <= gone

    built.tidemark("demo", "add")
    built.tidemark("pipeline")
    assert {name for (name,) in built.rows("warehouse", RELATIONS)} == there
    assert built.rows("warehouse", "select count(*) > 0 from marts.fct_sales") == [(True,)]
