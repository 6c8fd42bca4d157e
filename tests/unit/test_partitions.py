"""The ranges that a partitioned raw table gets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from singer_postgres.core.warehouse.partition_ranges import gaps

RANGES = st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 30)), max_size=8)


def apart(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges that begin after the ones before them have ended."""
    found: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        if not found or found[-1][1] <= start:
            found.append((start, start + length))
    return found


@given(wanted=st.sets(st.integers(-6, 6)), width=st.integers(1, 9), there=RANGES)
def test_new_ranges_cover_what_is_needed_and_never_overlap(wanted, width, there):
    known = apart(there)
    needed = [(number * width, (number + 1) * width) for number in wanted]
    made = list(gaps(needed, known))
    every = sorted([*made, *known])
    assert all(start < end for start, end in made)
    assert all(one[1] <= other[0] for one, other in pairwise(every))
    values = {value for start, end in needed for value in range(start, end)}
    covered = {value for start, end in every for value in range(int(start), int(end))}
    assert values <= covered
    # and nothing that nobody needs
    assert {value for start, end in made for value in range(int(start), int(end))} <= values
