from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from tidemark.project.meltano_state import Bookmark
from tidemark.run.display import Display
from tidemark.run.errors import RunFailedError
from tidemark.run.events import BlockDone, Failure, NodeDone, Rows, StreamBegan, TextLine
from tidemark.run.outcome import BlockOutcome, RunOutcome
from tidemark.run.progress import StepProgress
from tidemark.run.summary import stream_reports


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
    assert outcome.progress(outcome.block) == "30 rows of 1 stream"


def failed(*events):
    outcome = RunOutcome([BlockOutcome("Extract and load")])
    for event in (*events, BlockDone(success=False, error="exit code: 1")):
        outcome.take(event)
    failure = outcome.failure()
    assert failure
    return failure


def test_the_reason_is_dbts_own_error_and_names_what_failed_only_if_dbt_was_killed_before_it():
    nodes = [NodeDone(index, 5, "ERROR", f"model_{index}") for index in range(5)]
    own = Failure("model_0: it needs a unique_key; model_1: …", "models_failed", False, "Look at them.")
    assert failed(*nodes, own) == own
    failure = failed(*nodes)
    assert (failure.code, failure.message.partition(",")[0]) == ("process_gone", "model_0")
    assert "model_2 and 2 more failed" in failure.message


def test_the_reason_is_the_error_that_ended_the_run_and_not_an_earlier_streams():
    stream = Failure("Reading x failed", "column_retyped", False, "", stream="public-x")
    whole = Failure("The source went away", "source_unreachable", True, "")
    assert failed(stream, whole) == whole
    assert failed(stream) == stream


def test_the_last_log_line_is_the_reason_for_a_process_that_ends_without_an_error():
    failure = failed(TextLine("Killed", "meltano", "error"))
    assert (failure.code, failure.transient) == ("process_gone", True)


def test_a_run_with_a_missing_table_loads_everything_else_and_fails():
    outcome = RunOutcome([BlockOutcome("Extract and load"), BlockOutcome("Test")])
    outcome.take(StreamBegan("public-y", incremental=False))
    outcome.take(Failure("`metadata` names public-x", "table_missing", False, "", stream="public-x"))
    outcome.take(BlockDone(success=True, error=None))
    outcome.take(BlockDone(success=True, error=None))
    assert outcome.culprit.title == "Extract and load"
    failure = outcome.failure()
    assert failure
    assert (failure.code, failure.message) == (
        "table_missing",
        "The source has no public-x; all other streams were loaded",
    )


def test_a_run_that_ended_in_the_middle_did_not_succeed():
    outcome = RunOutcome([BlockOutcome("Extract and load"), BlockOutcome("Test")])
    outcome.take(BlockDone(success=True, error=None))
    assert not outcome.ended_well
    assert outcome.culprit.title == "Test"


def test_a_step_whose_tests_fail_says_how_many_of_them_succeeded():
    printed = Console(file=StringIO(), width=80)
    outcome = RunOutcome([BlockOutcome("dbt-postgres:test", "Test")])
    statuses = ("PASS", "PASS", "WARN", "FAIL", "ERROR")
    events = [NodeDone(index, len(statuses), status, f"test_{index}") for index, status in enumerate(statuses)]
    StepProgress(Display(printed)).follow(iter([*events, BlockDone(success=False, error="exit code: 1")]), outcome)
    assert "✗ Test              3 of 5 " in printed.file.getvalue()


def shown(title, events, *, names="tap-postgres target-postgres", success=True):
    printed = Console(file=StringIO(), width=80)
    outcome = RunOutcome([BlockOutcome(names, title)])
    StepProgress(Display(printed)).follow(iter([*events, BlockDone(success, None)]), outcome)
    return printed.file.getvalue().splitlines()[-1]


def test_counts_beside_a_cross_are_of_the_streams_that_were_loaded():
    began = [StreamBegan(f"public-{name}", incremental=True) for name in "abc"]
    read = [Rows(f"public-{name}", 10, "read") for name in "abc"]
    one = Failure("It is refused", "column_retyped", False, "", stream="public-a")
    whole = Failure("The source went away", "source_unreachable", True, "")
    assert "✗ Load              20 rows of 2 of 3 streams" in shown("Load", [*began, *read, one], success=False)
    # nothing says which streams were complete when the run ended
    written = Rows("public-b", 4, "inserted")
    assert "✗ Load              4 rows written" in shown("Load", [*began, *read, written, whole], success=False)
    assert "✓ Load              0 rows of 3 streams" in shown("Load", began)


def test_a_step_that_had_nothing_to_do_gets_no_tick():
    assert "· Load              no stream is selected" in shown("Load", [])
    assert "· Build models      there is nothing to do" in shown("Build models", [], names="dbt-postgres:run")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("run_busy", 75),
        ("setting_invalid", 78),
        ("source_unreachable", 69),
        ("warehouse_unreachable", 69),
        ("login_refused", 69),
        ("lock_busy", 1),
        ("a code of another release", 1),
    ],
)
def test_a_run_ends_with_the_status_of_what_failed(code, status):
    assert RunFailedError("failed", Failure("failed", code, transient=False, hint="")).status == status
