"""`tidemark check` on masks that can't hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.checking import check, only, shops, streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    yield from shops()


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ({"public-customers": {"email": "sha256"}}, "set mask_secret (TAP_POSTGRES_MASK_SECRET in .env"),
        (
            {"public-customers": {"email": "sha265"}},
            "'sha265' of public-customers.email is no mask; did you mean sha256?",
        ),
        ({"public-customers": {"emial": "null"}}, "masks of public.customers name emial, and it has no such column"),
        (
            {"public-costumers": {"email": "null"}},
            "masks names public-costumers, which the source does not have; public-cu",
        ),
        ({"public-customers": {"customer_id": "null"}}, "part of the key, and mask 'null' would make rows"),
    ],
    ids=["no secret", "a misspelt mask", "a misspelt column", "a misspelt stream", "a key"],
)
def test_a_mask_that_can_not_hold_is_one_line_from_the_check_and_from_the_run(checkout, masks, says):
    env = {**streams(customers=None), "TAP_POSTGRES_MASKS": json.dumps(masks)}
    found = only(check(checkout, env))
    assert (found["level"], says in found["what"]) == ("error", True), found["what"]
    run = checkout.run("tidemark", "run", "tap-postgres", "target-postgres", env=env)
    assert run.returncode
    (error,) = run.stderr.strip().splitlines()
    assert says in error
