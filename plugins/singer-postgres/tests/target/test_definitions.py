from __future__ import annotations

import json

import definitions
from singer_postgres.target.target import TargetPostgres


def test_meltano_knows_the_settings_of_the_target_as_the_code_has_them():
    for path in definitions.LOCKS["target"]:
        lock = path.read_text(encoding="utf-8")
        assert definitions.with_settings(path, "target") == lock, "run `make definitions`"
        assert '"name": "max_parallel"' in lock


def test_meltano_knows_no_capability_that_the_target_lacks():
    locks = [json.loads(path.read_text(encoding="utf-8")) for path in definitions.LOCKS["target"]]
    assert {each for lock in locks for each in lock["capabilities"]} <= {
        str(each.value) for each in TargetPostgres.capabilities
    }
