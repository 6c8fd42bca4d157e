from __future__ import annotations

import json

import definitions
from singer_postgres.tap.tap import TapPostgres


def test_the_generator_of_meltanos_definitions_has_the_settings_of_the_tap_as_the_code_has_them():
    text = definitions.path("tap").read_text(encoding="utf-8")
    assert definitions.text("tap") == text, "run `make definitions`"
    schema = definitions.schema_path("tap").read_text(encoding="utf-8")
    assert definitions.schema("tap") == schema, "run `make definitions`"
    assert '"name": "max_parallel"' in text


def test_meltano_knows_no_capability_that_the_tap_lacks():
    locks = [
        json.loads(path.read_text(encoding="utf-8")) for path in definitions.path("tap").parents[5].glob("*/tap-*.lock")
    ]
    assert locks
    assert {each for lock in locks for each in lock["capabilities"]} <= {
        str(each.value) for each in TapPostgres.capabilities
    }
