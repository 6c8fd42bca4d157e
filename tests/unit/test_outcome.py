from __future__ import annotations

from tidemark.project.meltano_state import Bookmark
from tidemark.run.events import BlockDone, Line, NodeDone, Rows, StreamBegan
from tidemark.run.outcome import BlockOutcome, RunOutcome
from tidemark.run.report import stream_reports


def report(*, incremental: bool = True, **rows: int):
    outcome = RunOutcome([BlockOutcome("Extract and load")])
    outcome.take(StreamBegan("public-orders", incremental=incremental))
    for what, count in rows.items():
        outcome.take(Rows("public-orders", count, what))
    # a FULL_TABLE stream may still have a bookmark from when it was incremental
    (found,) = stream_reports(outcome, {"public-orders": Bookmark("updated_at", "2026-01-01T10:00:00.123+00:00")})
    return found


def figures(found):
    return found.new, found.changed, found.deleted, found.unchanged


def test_a_first_load_is_all_new():
    assert figures(report(read=500, inserted=500)) == (500, 0, 0, 0)


def test_new_changed_and_unchanged_add_up_to_what_was_read():
    assert figures(report(read=15, inserted=4, updated=8)) == (4, 8, 0, 3)


def test_rows_missing_from_a_full_table_stream_are_counted():
    found = report(read=500, inserted=1, deleted=2, incremental=False)
    assert figures(found) == (1, 0, 2, 499)
    assert found.bookmark == "read whole"


def test_a_bookmark_is_shown_to_the_second():
    assert report(read=1).bookmark == "2026-01-01 10:00:00"


def test_counts_of_one_stream_are_summed_as_the_tap_reports_them_in_parts():
    outcome = RunOutcome([BlockOutcome("Extract and load")])
    for _ in range(3):
        outcome.take(Rows("public-orders", 10, "read"))
    assert outcome.read == 30


def test_the_reason_names_the_models_or_tests_that_failed():
    outcome = RunOutcome([BlockOutcome("Build models"), BlockOutcome("Test")])
    outcome.take(BlockDone(success=True, error=None))
    for index in range(5):
        outcome.take(NodeDone(index, 5, "FAIL", f"test_{index}"))
    outcome.take(BlockDone(success=False, error="exit code: 1"))
    assert outcome.culprit.title == "Test"
    assert outcome.reason() == "test_0, test_1, test_2 and 2 more failed"


def test_the_reason_is_what_the_plugin_logged_as_an_error():
    outcome = RunOutcome([BlockOutcome("Extract and load")])
    outcome.take(Line("Beginning", "tap-postgres", "info"))
    outcome.take(Line("An unhandled error occurred while syncing 'public-orders'", "tap-postgres", "error"))
    outcome.take(Line("UndefinedColumn: column x does not exist\nLINE 1: …", "tap-postgres", "error"))
    outcome.take(BlockDone(success=False, error="Extractor failed"))
    assert outcome.reason() == (
        "An unhandled error occurred while syncing 'public-orders': UndefinedColumn: column x does not exist"
    )


def test_the_reason_of_a_dbt_error_is_the_line_below_its_heading():
    outcome = RunOutcome([BlockOutcome("Build models")])
    for text in ("Encountered an error:", "Database Error", "  connection to server failed: Connection refused", ""):
        outcome.take(Line(text, "dbt-postgres", "info"))
    outcome.take(BlockDone(success=False, error="`dbt-postgres run` failed with exit code: 2"))
    assert outcome.reason() == "Database Error: connection to server failed: Connection refused"


def test_the_reason_of_a_crash_is_the_last_line_of_its_traceback():
    outcome = RunOutcome([BlockOutcome("Extract and load")])
    for text in ("Traceback (most recent call last):", '  File "x"', "ValueError: no such thing", "  "):
        outcome.take(Line(text, "meltano", "error"))
    assert outcome.reason() == "ValueError: no such thing"


def test_a_run_that_ended_in_the_middle_did_not_succeed():
    outcome = RunOutcome([BlockOutcome("Extract and load"), BlockOutcome("Test")])
    outcome.take(BlockDone(success=True, error=None))
    assert not outcome.ended_well
    assert outcome.culprit.title == "Test"
