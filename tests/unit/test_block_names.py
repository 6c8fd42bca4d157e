"""How `meltano run` splits its arguments into blocks."""

from __future__ import annotations

import pytest

from tidemark.run.block_names import split


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
