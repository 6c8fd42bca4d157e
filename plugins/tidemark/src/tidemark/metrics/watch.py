"""`tidemark status --watch`: streams, models, backups and the alerts that would fire, in a terminal, until Ctrl-C."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

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
_HEADINGS = ("stream", "last run", "began", "rows", "usual", "behind", "every")
_TEXTS = ("stream", "last run")
# which figures a narrow screen shows before others
_BY_WORTH = ("behind", "rows", "began", "every", "usual")
# columns between two columns, and what is left for `last run` at least
_GAP, _SHORTEST = 2, 9
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
    def first(stream: StreamOverview) -> tuple[bool, bool, str, str]:
        name = f"{stream.source}: {stream.stream}"
        return name not in troubled, stream.running_rows is None, stream.source, stream.stream

    shown = sorted(streams, key=first)
    rows = [_cells(stream, troubled, now) for stream in shown[:room]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, wide in _fitting(rows, width).items():
        justify: Literal["left", "right"] = "left" if heading in _TEXTS else "right"
        table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis", width=wide)
    for row in rows:
        table.add_row(*(row[str(column.header)] for column in table.columns))
    if len(shown) > room:
        table.add_row(Text(f"and {len(shown) - room} more", style="dim"))
    if not shown:
        table.add_row(Text("Nothing has been loaded yet: run the pipeline.", style="dim"))
    return table


def _cells(stream: StreamOverview, troubled: set[str], now: float) -> dict[str, Text]:
    """Return the cells of a stream by their heading, in the order of the columns."""
    rows = stream.rows if stream.running_rows is None else stream.running_rows
    last = (stream.outcome or "never", stream.code) if stream.running_rows is None else ("running", "")
    name = f"{stream.source}: {stream.stream}"
    return {
        "stream": Text(name, style="red" if name in troubled else ""),
        "last run": Text(" ".join(last).strip(), style=_COLOURS.get(last[0], "default")),
        "began": Text("" if stream.started is None else f"{duration(now - stream.started)} ago"),
        "rows": Text("" if rows is None else f"{rows:,.0f}{' …' if stream.running_rows is not None else ''}"),
        "usual": Text("" if stream.usual_rows is None else f"{stream.usual_rows:,.0f}"),
        "behind": Text("" if stream.lag is None else duration(stream.lag)),
        "every": Text("" if stream.interval is None else duration(stream.interval)),
    }


def _fitting(rows: list[dict[str, Text]], width: int) -> dict[str, int]:
    """Return the columns that fit on a screen, and how wide each is. Figures are shown whole or not at all.

    The names come first, because streams must be told apart; then how the last run ended, which is cut if it must be.
    """
    wanted = {heading: max([len(heading), *(row[heading].cell_len for row in rows)]) for heading in _HEADINGS}
    name = min(wanted["stream"], width - _SHORTEST - _GAP)
    fitting = {"stream": name, "last run": min(wanted["last run"], width - name - _GAP)}
    left = width - sum(fitting.values()) - _GAP
    for heading in _BY_WORTH:
        if wanted[heading] + _GAP <= left:
            fitting[heading] = wanted[heading]
            left -= wanted[heading] + _GAP
    return {heading: fitting[heading] for heading in _HEADINGS if heading in fitting}


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
