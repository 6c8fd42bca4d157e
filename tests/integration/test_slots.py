"""`tidemark slots` makes what LOG_BASED streams need, and the shop follows its log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import Checkout, make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT = "tidemark_tap_postgres"


@pytest.fixture
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="loaded")


def slots(project: Checkout) -> list[dict[str, object]]:
    return json.loads(project.tidemark("slots", "list", "--json"))


@pytest.mark.long
def test_the_shop_follows_its_log_after_the_steps_of_the_page(project):
    definition = project.root / "extract" / "extractors.meltano.yml"
    text = definition.read_text()
    for name in ("orders", "order_items"):
        text = text.replace(f"public-{name}: *incremental", f"public-{name}: {{replication-method: LOG_BASED}}")
    definition.write_text(text)
    assert "LOG_BASED streams need wal_level logical" in project.run("tidemark", "check").stdout
    assert "wal_level needs a restart" in project.refusal("slots", "create")
    project.tidemark("down")
    project.tidemark("up")
    statements = project.tidemark("slots", "create", "--sql")
    assert "CREATE PUBLICATION" in statements
    assert "pg_create_logical_replication_slot" in statements
    assert slots(project) == []
    project.tidemark("slots", "create")
    assert "has all that its LOG_BASED streams need" in project.tidemark("slots", "create")
    project.tidemark("check")

    project.extract_and_load()
    with project.connect("source") as connection:
        connection.execute("delete from order_items where order_id = 3")
        connection.execute("update orders set shipping_fee = 99 where order_id = 4")
    project.extract_and_load()
    for found in json.loads(project.tidemark("reconcile", "--json")):
        assert (found["missing"], found["different"], found["extra"]) == (0, 0, 0), found
    assert project.rows("warehouse", "select shipping_fee from raw.orders where order_id = 4") == [(99,)]
    (slot,) = slots(project)
    assert slot["slot"] == SLOT
    assert slot["confirmed"] == slot["warehouse"]
    fits = {each["stream"]: each["fit"] for each in json.loads(project.tidemark("state", "check", "--json"))}
    assert set(fits.values()) == {"fits"}

    project.tidemark("slots", "drop", SLOT, "--yes")
    assert slots(project) == []
    assert "has no replication slot" in project.run("tidemark", "check").stdout
