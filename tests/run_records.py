"""Fills a project's warehouse with every kind of run record, through real runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout


def fill(project: Checkout) -> None:
    def source(*statements: str) -> None:
        with project.connect("source") as connection:
            for statement in statements:
                connection.execute(statement)

    # a new column, and rows that were changed and added
    source(
        "alter table customers add nickname text",
        "update customers set city = 'Ys', updated_at = now() where customer_id = 1",
    )
    project.extract_and_load()
    # one stream can't be loaded any more, and a selected one never was
    source("alter table products alter updated_at type date", "create table suppliers (id int primary key)")
    failed = project.run("meltano", "run", "tap-postgres", "target-postgres", env={"MELTANO_RUN_FORCE": "1"})
    assert failed.returncode == 1, failed.stderr
    path = project.root / "extract" / "extractors.meltano.yml"
    config = yaml.safe_load(path.read_text())
    config["plugins"]["extractors"][0]["select"].append("public-suppliers.*")
    path.write_text(yaml.safe_dump(config))
    # rows that are read again do not make the stream fresher
    project.tidemark("backfill", "public-orders", "--from", "2000-01-01")
    # changes that no run sees: found in two streams, and repaired in one of them
    with project.connect("warehouse") as connection:
        connection.execute("delete from raw.customers where customer_id in (2, 3)")
        connection.execute("update raw.orders set status = 'unheard' where order_id = 1")
    project.tidemark("reconcile", "--repair", "public-orders")
    assert project.run("tidemark", "reconcile", "public-customers", "public-order_items", "public-suppliers").returncode
