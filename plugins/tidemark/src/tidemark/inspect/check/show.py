"""Prints findings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from tidemark.inspect.check.finding import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tidemark.inspect.check.finding import Finding

_NAMED = 6
_MARKS = {
    Level.ok: ("✓ ok     ", "green"),
    Level.note: ("· note   ", "cyan"),
    Level.warning: ("! warning", "yellow"),
    Level.error: ("✗ error  ", "red"),
}


def as_json(findings: Sequence[Finding]) -> str:
    """Return findings as a JSON list."""
    return json.dumps([finding.as_dict() for finding in findings], indent=2)


def show(console: Console, findings: Sequence[Finding]) -> None:
    """Print findings by database and stream. Those about the whole database come first."""
    several = len({finding.source for finding in findings if finding.source}) > 1
    for side in ("source", "warehouse", "both"):
        of_side = [finding for finding in findings if finding.side == side]
        # the warehouse's findings stay together
        for source in dict.fromkeys(finding.source for finding in of_side) if side == "source" else ("",):
            of_source = [finding for finding in of_side if finding.source == source or side != "source"]
            if of_source:
                console.print(Text(f"{side} {source}" if several and source else side, "bold"))
                _show_streams(console, of_source, with_source=several and side != "source")
    console.print(_summary(findings))


def _show_streams(console: Console, findings: Sequence[Finding], *, with_source: bool) -> None:
    def name(finding: Finding) -> str | None:
        return f"{finding.source}/{finding.stream}" if with_source and finding.stream else finding.stream

    for finding in findings:
        if not finding.stream:
            _print(console, finding, indent="  ")
    # streams with the same findings are shown once, such as twenty views without a key
    alike: dict[tuple[Finding, ...], list[str]] = {}
    for stream in dict.fromkeys(filter(None, map(name, findings))):
        own = tuple(replace(finding, stream=None) for finding in findings if name(finding) == stream)
        alike.setdefault(own, []).append(stream)
    for own, streams in alike.items():
        more = f" and {len(streams) - _NAMED} more" if len(streams) > _NAMED else ""
        console.print(Text(f"  {', '.join(streams[:_NAMED])}{more}", "bold"), soft_wrap=True)
        for finding in own:
            _print(console, finding, indent="    ")


def _print(console: Console, finding: Finding, *, indent: str) -> None:
    mark, style = _MARKS[finding.level]
    # not wrapped, so that a statement can be copied as one line
    console.print(Text.assemble(indent, (mark, style), " ", finding.what), soft_wrap=True)
    for statement in finding.fix:
        console.print(Text.assemble(f"{indent}    fix: ", (f"{statement};", "bold")), soft_wrap=True)


def _summary(findings: Sequence[Finding]) -> str:
    counts = {level: sum(finding.level is level for finding in findings) for level in Level if level is not Level.ok}
    counted = [f"{count} {level}{'s' if count > 1 else ''}" for level, count in reversed(counts.items()) if count]
    return f"{', '.join(counted)}." if counted else "All is in order."
