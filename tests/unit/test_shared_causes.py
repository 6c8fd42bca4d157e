"""Several failures in one line: a cause that many share is said once."""

from __future__ import annotations

from singer_postgres.core.driver_errors import missing_grant
from singer_postgres.core.shared_causes import of_streams


def test_a_cause_that_differs_only_in_the_streams_name_is_said_once_and_others_keep_their_names():
    failed = {
        **{f"public-v_{n}": ValueError(f"public-v_{n} has no key; name public.v_{n} in x.") for n in range(20)},
        "public-t": ValueError('Loading public-t into raw.t failed: "raw"."t" is full.'),
    }
    assert of_streams(failed) == (
        'public-v_0, public-v_1, public-v_2 and 17 more: each has no key; name each in x. public-t: "raw"."t" is full.'
    )


def test_a_missing_right_on_a_schema_is_said_with_the_role_and_the_grant():
    said = missing_grant("permission denied for schema My App\nLINE 1: select …", "read er")
    assert said == ': as the schema\'s owner, GRANT USAGE ON SCHEMA "My App" TO "read er"'
    assert missing_grant("permission denied for table orders", None).endswith("GRANT SELECT ON orders TO its role")
    assert not missing_grant("something else", "x")
