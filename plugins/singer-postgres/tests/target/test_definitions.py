from __future__ import annotations

import json

import definitions
from singer_postgres.target.target import TargetPostgres


def test_meltano_knows_the_settings_of_the_target_as_the_code_has_them():
    lock = definitions.LOCKS["target"].read_text(encoding="utf-8")
    assert definitions.with_settings(lock, "target") == lock, "run `make definitions`"
    assert '"name": "max_parallel"' in lock


def test_meltano_knows_no_capability_that_the_target_lacks():
    lock = json.loads(definitions.LOCKS["target"].read_text(encoding="utf-8"))
    assert set(lock["capabilities"]) <= {str(each.value) for each in TargetPostgres.capabilities}
