from __future__ import annotations

from tidemark.pipeline.counts import Count
from tidemark.pipeline.events import BlockDone, Line, NodeDone, Rows
from tidemark.pipeline.outcome import Outcome
from tidemark.pipeline.report import stream_reports
from tidemark.pipeline.state import Bookmark

BOOKMARK = {"public-orders": Bookmark("updated_at", "2026-01-01T10:00:00+00:00")}


def report(read: int, before: dict[str, Count], after: Count, bookmarks=BOOKMARK):
    outcome = Outcome(["Extract and load"])
    outcome.take(Rows("public-orders", read, written=False))
    outcome.take(Rows("public-orders", read, written=True))
    (found,) = stream_reports(outcome, before, {"public-orders": after}, bookmarks)
    return found.new, found.changed, found.again


def test_a_first_load_is_all_new():
    assert report(500, {}, Count(500)) == (500, 0, 0)


def test_an_idle_run_only_reads_again():
    assert report(3, {"public-orders": Count(500, 3)}, Count(500, 3)) == (0, 0, 3)


def test_new_changed_and_read_again_add_up_to_what_was_read():
    assert report(15, {"public-orders": Count(500, 3)}, Count(504, 3)) == (4, 8, 3)


def test_a_row_that_left_the_bookmark_was_changed():
    assert report(3, {"public-orders": Count(500, 3)}, Count(500, 2)) == (0, 1, 2)


def test_a_stream_without_a_bookmark_is_read_whole():
    assert report(500, {"public-orders": Count(499)}, Count(500), bookmarks={}) == (1, 0, 499)


def test_counts_of_one_stream_are_summed_as_the_tap_reports_them_in_parts():
    outcome = Outcome(["Extract and load"])
    for _ in range(3):
        outcome.take(Rows("public-orders", 10, written=False))
    assert outcome.read == {"public-orders": 30}


def test_the_reason_names_the_models_or_tests_that_failed():
    outcome = Outcome(["Build models", "Test"])
    outcome.take(BlockDone(success=True, error=None))
    for index in range(5):
        outcome.take(NodeDone(index, 5, "FAIL", f"test_{index}"))
    outcome.take(BlockDone(success=False, error="exit code: 1"))
    assert outcome.culprit.title == "Test"
    assert outcome.reason() == "test_0, test_1, test_2 and 2 more failed"


def test_the_reason_is_what_the_plugin_logged_as_an_error():
    outcome = Outcome(["Extract and load"])
    outcome.take(Line("Beginning", "tap-postgres", "info"))
    outcome.take(Line("An unhandled error occurred while syncing 'public-orders'", "tap-postgres", "error"))
    outcome.take(Line("UndefinedColumn: column x does not exist\nLINE 1: …", "tap-postgres", "error"))
    outcome.take(BlockDone(success=False, error="Extractor failed"))
    assert outcome.reason() == (
        "An unhandled error occurred while syncing 'public-orders': UndefinedColumn: column x does not exist"
    )


def test_a_run_that_ended_in_the_middle_did_not_end_well():
    outcome = Outcome(["Extract and load", "Test"])
    outcome.take(BlockDone(success=True, error=None))
    assert not outcome.ended_well
    assert outcome.culprit.title == "Test"
