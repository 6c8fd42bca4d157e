"""`tidemark status --watch`: streams, models, backups and the alerts that would fire, in a terminal, until Ctrl-C."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tidemark.metrics.alert_conditions import duration, holding
from tidemark.metrics.exporter import Exporter
from tidemark.metrics.overview import overview

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleDimensions, RenderableType

    from tidemark.metrics.alert_conditions import Condition
    from tidemark.metrics.overview import Overview, StreamOverview
    from tidemark.project.directory import Project

_EVERY_S = 2.0
# lines that the rest of the screen takes
_REST = 9
_MOST_ALERTS = 8
# the width that all columns beside the stream's name take
_FIGURES = 80
_COLOURS = {"succeeded": "green", "running": "cyan", "failed": "red", "killed": "red"}


def watch(console: Console, project: Project) -> None:
    """Show the state every two seconds, until the process is interrupted."""
    said: dict[str, str] = {}

    def say(line: str) -> None:
        part, _, why = line.partition(": ")
        said[part] = why

    exporter = Exporter(project, say)
    waiting = threading.Event()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            found = overview(exporter.read())
            why = [f"{part}: {said[part]}" for part, up in found.parts.items() if not up and part in said]
            live.update(screen(found, time.time(), size=console.size, why=why), refresh=True)
            waiting.wait(_EVERY_S)


def screen(found: Overview, now: float, *, size: ConsoleDimensions, why: Iterable[str] = ()) -> RenderableType:
    """Return what to show on a screen of that size."""
    conditions = list(holding(found, now))
    reasons = [Text(line, style="red", overflow="ellipsis", no_wrap=True) for line in why]
    alerts = _alerts(conditions)
    room = max(3, size.height - _REST - len(alerts) - len(reasons))
    return Group(
        _head(found, now),
        *reasons,
        Text(),
        _streams(found.streams, {condition.about for condition in conditions}, now, room, size.width),
        Text(),
        _models(found, now),
        _backups(found, now),
        Text(),
        *alerts,
    )


def _head(found: Overview, now: float) -> Text:
    line = Text(f"Tidemark  {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC  ", style="bold")
    for part, up in found.parts.items():
        line.append(f" {part} ", style="green" if up else "reverse red")
    return line


def _streams(streams: list[StreamOverview], troubled: set[str], now: float, room: int, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    longest = max((len(f"{each.source}: {each.stream}") for each in streams), default=0)
    # the names come first: a narrow screen leaves columns out
    headings = ["last run", "began", "rows", "usual", "behind", "every"]
    if longest + _FIGURES > width:
        headings = ["last run", "rows", "behind"]
    table.add_column("stream", no_wrap=True, overflow="ellipsis", ratio=1, min_width=min(longest, width // 2))
    for heading in headings:
        is_text = heading == "last run"
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True, overflow="ellipsis")

    def first(stream: StreamOverview) -> tuple[bool, bool, str, str]:
        name = f"{stream.source}: {stream.stream}"
        return name not in troubled, stream.running_rows is None, stream.source, stream.stream

    shown = sorted(streams, key=first)
    for stream in shown[:room]:
        rows = stream.rows if stream.running_rows is None else stream.running_rows
        last = (stream.outcome or "never", stream.code) if stream.running_rows is None else ("running", "")
        bad = f"{stream.source}: {stream.stream}" in troubled
        figures: dict[str, str | Text] = {
            "last run": Text(" ".join(last).strip(), style=_COLOURS.get(last[0], "default")),
            "began": "" if stream.started is None else f"{duration(now - stream.started)} ago",
            "rows": "" if rows is None else f"{rows:,.0f}{' …' if stream.running_rows is not None else ''}",
            "usual": "" if stream.usual_rows is None else f"{stream.usual_rows:,.0f}",
            "behind": "" if stream.lag is None else duration(stream.lag),
            "every": "" if stream.interval is None else duration(stream.interval),
        }
        name = Text(f"{stream.source}: {stream.stream}", style="red" if bad else "")
        table.add_row(name, *(figures[heading] for heading in headings))
    if len(shown) > room:
        table.add_row(Text(f"and {len(shown) - room} more", style="dim"))
    if not shown:
        table.add_row(Text("Nothing has been loaded yet: run the pipeline.", style="dim"))
    return table


def _models(found: Overview, now: float) -> Text:
    built = [model.succeeded for model in found.models if model.succeeded is not None]
    line = Text(f"models  {len(built)} built")
    if built:
        line.append(f", the oldest {duration(now - min(built))} ago")
    if found.build_locked:
        line.append(", a build is running", style="cyan")
    for result, count in sorted(found.tests.items()):
        line.append(f", {count} tests: {result}", style="" if result == "pass" else "red")
    return line


def _backups(found: Overview, now: float) -> Text:
    if not found.backups or found.backup_made is None:
        return Text("backup  none")
    line = Text(f"backup  {duration(now - found.backup_made)} ago")
    if found.backup_bytes is not None:
        line.append(f", {found.backup_bytes / 1e6:,.1f} MB")
    if found.drill_at is not None:
        line.append(f", {'restored' if found.drill_succeeded else 'not restored'} by a drill ")
        line.append(f"{duration(now - found.drill_at)} ago")
    return line


def _alerts(conditions: list[Condition]) -> list[Text]:
    if not conditions:
        return [Text("No alert would fire.", style="green")]
    lines = [Text(f"Alerts that would fire ({len(conditions)}); docs/runbook.md says what to do:", style="bold red")]
    for each in conditions[:_MOST_ALERTS]:
        line = Text(f"  {each.alert}  ", style="red", no_wrap=True, overflow="ellipsis")
        line.append(f"{each.about}{'  ' if each.about else ''}{each.figures}", style="default")
        lines.append(line)
    if len(conditions) > _MOST_ALERTS:
        lines.append(Text(f"  and {len(conditions) - _MOST_ALERTS} more", style="dim"))
    return lines
