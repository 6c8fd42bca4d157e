from __future__ import annotations

import pytest

from tidemark.run.kinds import FailureKind, kind_of, split

LOAD = "tap-postgres target-postgres"


@pytest.mark.parametrize(
    ("block", "reason", "kind"),
    [
        (LOAD, "Cannot connect to the source database 'shop' on db:5432: Connection refused", FailureKind.unreachable),
        (
            "dbt-postgres:run",
            'Database Error: FATAL: password authentication failed for user "x"',
            FailureKind.unreachable,
        ),
        (LOAD, "State says that public-orders was loaded up to 2026, and raw.orders holds none", FailureKind.state),
        (LOAD, "public-orders.total changed its type from text to integer, which can't be followed", FailureKind.shape),
        (LOAD, "public-orders has no primary key, so rows that are read again could not be told", FailureKind.load),
        ("dbt-postgres:run", "fct_sales failed", FailureKind.models),
        ("dbt-postgres:test", "unique_orders failed", FailureKind.tests),
        ("dbt-postgres:freshness", "freshness of raw.orders failed", FailureKind.freshness),
        ("tidemark:reconcile", "Source and warehouse differ", FailureKind.reconcile),
        ("tidemark:backup", "There is no space left", FailureKind.backup),
        ("tidemark:check", "An error above would stop a run", FailureKind.other),
    ],
)
def test_a_failure_has_the_kind_whose_runbook_section_has_its_fix(block, reason, kind):
    assert kind_of(block, reason) is kind


def test_blocks_are_split_as_meltano_does():
    blocks = "tap-postgres target-postgres dbt-postgres:run tap-crm target-crm"
    assert split(blocks.split()) == ["tap-postgres target-postgres", "dbt-postgres:run", "tap-crm target-crm"]


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ("tap-postgres", "has no target"),
        ("target-postgres", "has no tap"),
        ("tap-postgres dbt-postgres:run", "no target"),
    ],
)
def test_blocks_that_meltano_could_not_run_are_refused(blocks, said):
    with pytest.raises(ValueError, match=said):
        split(blocks.split())
