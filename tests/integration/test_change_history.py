"""A mart that reads the history of a LOG_BASED stream's changes, as its page has it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

MODEL = """
{{ config(unique_key=['order_id', 'lsn', 'number'], build_by=['order_id'],
    changed_by=[{'model': 'raw.orders_changes', 'key': 'order_id'}]) }}

select
    order_id, _sdc_lsn as lsn, _tidemark_number as number, status, _sdc_committed_at as since,
    lead(_sdc_committed_at) over (partition by order_id order by _sdc_lsn, _tidemark_number) as until
from {{ source('raw', 'orders_changes') }}
where _tidemark_operation in ('insert', 'update', 'delete')
"""
PROPERTIES = """
sources:
  - name: raw
    schema: "{{ env_var('TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA', '') or 'raw' }}"
    tables:
      - name: orders_changes
        config: {freshness: null}
models:
  - name: mart_order_statuses
    columns:
      - {name: order_id, data_type: bigint, data_tests: [not_null]}
      - {name: lsn, data_type: bigint}
      - {name: number, data_type: bigint}
      - {name: status, data_type: text}
      - {name: since, data_type: timestamptz, data_tests: [not_null]}
      - {name: until, data_type: timestamptz}
"""


@pytest.fixture
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="loaded")


@pytest.mark.long
def test_a_mart_reads_the_history_of_changes_by_key(project):
    definition = project.root / "extract" / "extractors.meltano.yml"
    text = definition.read_text()
    definition.write_text(text.replace("public-orders: *incremental", "public-orders: {replication-method: LOG_BASED}"))
    with (project.root / ".env").open("a") as file:
        for name in ("CHANGE_HISTORY", "COMMIT_COLUMNS"):
            file.write(f"TAP_POSTGRES_{name}='{json.dumps(['public-orders'])}'\n")
    project.refusal("slots", "create")
    project.tidemark("down")
    project.tidemark("up")
    project.tidemark("slots", "create")
    project.extract_and_load()
    marts = project.root / "transform" / "models" / "marts"
    (marts / "mart_order_statuses.sql").write_text(MODEL)
    (marts / "_changes.yml").write_text(PROPERTIES)

    def build(*statements: str) -> list[tuple[object, ...]]:
        with project.connect("source") as connection:
            for statement in statements:
                connection.execute(statement.encode())
        project.extract_and_load()
        done = project.dbt("build", "--select", "mart_order_statuses")
        assert done.returncode == 0, done.stdout
        return project.rows(
            "warehouse",
            "select order_id, until is null from marts.mart_order_statuses order by order_id, lsn, number",
        )

    assert build("update orders set shipping_fee = 7 where order_id = 4") == [(4, True)]
    found = build(
        "update orders set shipping_fee = 8 where order_id in (4, 5)",
        "delete from order_items where order_id = 6",
        "delete from orders where order_id = 6",
    )
    assert found == [(4, False), (4, True), (5, True), (6, True)]
    project.tidemark("check")
    for compared in json.loads(project.tidemark("reconcile", "public-orders", "--json")):
        assert (compared["missing"], compared["different"], compared["extra"]) == (0, 0, 0), compared
