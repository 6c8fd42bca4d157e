"""How `tidemark check` judges its facts and shows its findings."""

from __future__ import annotations

import pytest
from rich.console import Console

from tidemark.inspect.check import servers, show
from tidemark.inspect.check.finding import Finding, Level


def test_findings_are_grouped_by_side_and_stream_each_statement_a_line(capsys):
    show.show(
        Console(width=40),
        [
            Finding("source", Level.error, "late", ("select 1",), "public-b"),
            Finding("warehouse", Level.note, "elsewhere"),
            Finding("source", Level.warning, "[first]", ("a long statement " * 5 + "end", "select 2")),
        ],
    )
    assert capsys.readouterr().out.splitlines() == [
        "source",
        "  ! warning [first]",
        "      fix: " + "a long statement " * 5 + "end;",
        "      fix: select 2;",
        "  public-b",
        "    ✗ error   late",
        "        fix: select 1;",
        "warehouse",
        "  · note    elsewhere",
        "1 error, 1 warning, 1 note.",
    ]


def server(*, version: int = 18, ahead_s: float = 0) -> servers.ServerFacts:
    return servers.ServerFacts(version, f"{version}.1", "UTF8", False, False, "me", "db", ahead_s, pooled=False)


def test_a_clock_difference_is_reported_with_its_size():
    assert servers.clocks(server(ahead_s=3), server(ahead_s=-1.9)) == []
    (apart,) = servers.clocks(server(ahead_s=3), server(ahead_s=-2.1))
    assert "the source's clock is 5.1 s ahead of the warehouse's" in apart.what
    (alone, both) = servers.clocks(server(), server(ahead_s=60))
    assert (alone.side, both.side) == ("warehouse", "both")
    assert "60.0 s behind" in both.what


@pytest.mark.parametrize(("version", "level"), [(13, "error"), (14, "note"), (15, "ok"), (18, "ok"), (19, "note")])
def test_untested_versions_are_reported(version, level):
    (finding,) = servers.findings("source", server(version=version))
    assert finding.level == level
