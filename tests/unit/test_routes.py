"""Which rows of a load are copied straight into the table, and which are looked up in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from singer_postgres.target.routes import Route, Routes


@pytest.mark.parametrize(
    ("lacks_key", "empty", "merged", "first", "later"),
    [
        (True, True, False, Route.COPY, Route.COPY),
        (True, False, False, Route.COPY, Route.COPY),
        (False, True, False, Route.COPY, Route.MERGE),
        (False, False, False, Route.MERGE, Route.MERGE),
        (False, True, True, Route.MERGE, Route.MERGE),
    ],
)
def test_only_rows_that_can_not_be_there_already_skip_the_merge(lacks_key, empty, merged, first, later):
    routes = Routes.of_first_load("1", lacks_key=lacks_key, empty=empty, merged=merged)
    ready = replace(routes, has_defaults=True)
    assert (ready.of("1"), ready.of("2")) == (first, later)
    instead = {Route.COPY: Route.ADD, Route.MERGE: Route.MERGE}
    assert (routes.of("1"), routes.of("2")) == (instead[first], instead[later])
    # once the key is built
    assert replace(ready, lacks_key=False).of("2") is Route.MERGE
