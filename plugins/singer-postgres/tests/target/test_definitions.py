from __future__ import annotations

import json

import definitions
from singer_postgres.target.target import TargetPostgres


def test_the_generator_of_meltanos_definitions_has_the_settings_of_the_target_as_the_code_has_them():
    text = definitions.path("target").read_text(encoding="utf-8")
    assert definitions.text("target") == text, "run `make definitions`"
    schema = definitions.schema_path("target").read_text(encoding="utf-8")
    assert definitions.schema("target") == schema, "run `make definitions`"
    assert '"name": "max_parallel"' in text


def test_meltano_knows_no_capability_that_the_target_lacks():
    locks = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in definitions.path("target").parents[5].glob("*/target-*.lock")
    ]
    assert locks
    assert {each for lock in locks for each in lock["capabilities"]} <= {
        str(each.value) for each in TargetPostgres.capabilities
    }
