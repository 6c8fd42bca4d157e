"""Shows a run as it goes: a live line per step on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console


class DisplayedStep:
    """One step of the run, with a note that may change while it goes on.

    Attributes:
        failed: it gets a cross.
        is_empty: there was nothing to do, so it gets no tick.
    """

    def __init__(self, title: str, progress: Progress | None) -> None:
        """Begin it."""
        self._progress = progress
        self.note = ""
        self.failed = False
        self.is_empty = False
        self._task = progress.add_task(title, total=None, note="") if progress else None

    def say(self, note: str) -> None:
        """Replace the note."""
        self.note = note
        if self._progress and self._task is not None:
            self._progress.update(self._task, note=note)


class Display:
    """Shows steps, one after the other."""

    def __init__(self, console: Console) -> None:
        """Show them on `console`."""
        self.console = console

    def failure(self, title: str, why: str) -> None:
        """Show a step that could not begin."""
        self.console.print(Text.assemble(("✗", "red"), f" {title:<17} {why}"), soft_wrap=True)

    def nothing(self, title: str, why: str) -> None:
        """Show a step that has nothing to do."""
        self.console.print(Text.assemble(("·", "dim"), f" {title:<17} {why}"), soft_wrap=True)

    @contextmanager
    def kept(self, title: str) -> Iterator[Callable[[str], None] | None]:
        """Keep a line at the bottom of the terminal; yield what replaces its note, or None without a terminal."""
        if not self.console.is_terminal:
            yield None
            return
        # it may be there for days
        with _progress(self.console, refresh_per_second=2) as progress:
            yield DisplayedStep(title, progress).say

    @contextmanager
    def step(self, title: str) -> Iterator[DisplayedStep]:
        """Show a step while the `with` block runs, then its note and time. If the block raises, show nothing more."""
        began = time.monotonic()
        if self.console.is_terminal:
            with _progress(self.console) as progress:
                step = DisplayedStep(title, progress)
                yield step
        else:
            self.console.print(f"{title} …")
            step = DisplayedStep(title, None)
            yield step
        mark = "[red]✗[/]" if step.failed else "[dim]·[/]" if step.is_empty else "[green]✓[/]"
        self.console.print(f"{mark} {title:<17} {step.note} [dim]{time.monotonic() - began:.1f} s[/]")


def _progress(console: Console, *, refresh_per_second: float = 10) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description:<17}"), TextColumn("{task.fields[note]}"))
    return Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, refresh_per_second=refresh_per_second
    )
