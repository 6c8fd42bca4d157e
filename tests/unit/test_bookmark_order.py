"""Bookmarks are texts, and are compared as what they stand for."""

from __future__ import annotations

import pytest

from singer_postgres.core.bookmark_order import comparable, has_known_order, reaches
from tidemark.project.meltano_state import shown


@pytest.mark.parametrize(
    ("bookmark", "start", "reached"),
    [
        ("2026-12-01T10:00:00+02:00", "2026-12-01T08:00:00+00:00", True),
        ("2026-12-01T07:59:59", "2026-12-01T08:00:00", False),
        ("10", "9", True),
        ("1.5", "1.50", True),
        ("9007199254740993", "9007199254740992", True),
        # a date and a sequence: not the first of December, 12:02
        ("20261201122", "20261201201", False),
        ("20261201201", "20261201122", True),
        ("b", "a", False),
        ("b", "b", True),
        ("NaN", "1", False),
    ],
)
def test_instants_and_numbers_are_ordered_and_text_is_only_equal(bookmark, start, reached):
    assert reaches(bookmark, start) is reached


def test_digits_are_a_number_and_not_a_date():
    assert shown("20261201122") == "20261201122"
    assert has_known_order("20261201")
    assert comparable("20261201", "7")
    assert not comparable("20261201", "2026-12-01")
    assert not has_known_order("order-20261201")
