"""Runs that append to one table share the reading of its fresh pages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from singer_postgres.target.fresh_pages import own_pages


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 4))
def test_each_page_is_read_by_one_of_the_runs(first, after, count):
    ranges = [pages for own in range(count) for pages in own_pages(first, after, (own, count))]
    assert sorted(page for begin, end in ranges for page in range(begin, end)) == list(range(first, after))
