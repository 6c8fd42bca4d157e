"""What a LOG_BASED stream's state says while a run reads the log up to where it began."""

from __future__ import annotations

from dataclasses import replace

from singer_postgres.core.source.stream_query import ReadColumns
from singer_postgres.core.wire import Table
from singer_postgres.tap.log.log_stream import LogStream
from singer_postgres.tap.stream_plan import StreamPlan


def test_the_state_has_the_earlier_condition_until_the_log_has_no_change_by_it_any_more():
    plan = StreamPlan("public-a", "public", "a", "LOG_BASED", ("id",), ("id",), where=("id < 5",))
    table = Table("source", "public", "a", (), ("id",), "LOG_BASED")
    before = ReadColumns(1, 1, (), ("id < 9",), published="7")
    altered = replace(before, max_attnum=2)
    stream = LogStream(
        plan,
        table,
        before,
        is_binary=True,
        is_loading=False,
        altered=(table, altered),
        republished=("8", plan.where),
    )
    assert stream.columns == before
    assert stream.reached_start()
    assert stream.columns == replace(altered, where=("id < 5",), published="8")
    assert not stream.reached_start()
    # a transaction from before that is still open
    open_ = LogStream(plan, table, before, is_binary=True, is_loading=False, altered=(table, altered))
    assert open_.reached_start()
    assert (open_.columns.where, open_.columns.published) == (("id < 9",), "7")
