"""The streams that Meltano was asked to select, which it passes to its plugins in environment variables.

The catalog doesn't tell: once Meltano has filled it in, a selected table that was dropped looks like one that never
existed. Before each run Meltano also discovers all relations to select from. Those that no pattern matches need no
description then.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SettingInvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_EXTRA = "MELTANO_EXTRACT__"
# Meltano's rule: the part before the first unescaped dot matches streams, the part after it matches columns
_UNESCAPED_DOT = re.compile(r"(?<!\\)\.")
# commands that move rows, and commands that list everything one can select
_RUNNING, _OTHERS = {"run", "el", "elt"}, {"select", "invoke", "config", "test"}


@dataclass(frozen=True)
class Pattern:
    """A pattern of `select` or `select_filter`."""

    streams: str
    columns: str
    negated: bool

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse a pattern as Meltano does."""
        streams, *columns = _UNESCAPED_DOT.split(text.removeprefix("!"), maxsplit=1)
        return cls(streams.replace("\\.", "."), columns[0] if columns else "*", text.startswith("!"))

    def names_one(self) -> bool:
        """Return whether the pattern is the name of a single stream."""
        return not _is_pattern(self.streams)


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


@dataclass(frozen=True)
class SelectedStreams:
    """The selected streams.

    Attributes:
        select: patterns of streams and columns.
        only: patterns that limit the run to some streams (`select_filter`).
        by_metadata: patterns of streams that `metadata` selects.
        described: streams that `metadata` says something of, by name.
    """

    select: tuple[Pattern, ...]
    only: tuple[Pattern, ...] = ()
    by_metadata: tuple[str, ...] = ()
    described: tuple[str, ...] = ()

    def may_match(self, stream: str) -> bool:
        """Return whether a stream may be selected."""
        return any(fnmatch(stream, pattern.streams) for pattern in self.select if not pattern.negated) or any(
            fnmatch(stream, pattern) for pattern in self.by_metadata
        )

    def missing(self, streams: Iterable[str]) -> list[str]:
        """Return the names of selected streams that are not in `streams`."""
        there = set(streams)
        named = dict.fromkeys(each.streams for each in self.select if each.names_one() and not each.negated)
        return [name for name in named if name not in there and not self._is_left_out(name)]

    def _is_left_out(self, stream: str) -> bool:
        excluded = [each for each in (*self.select, *self.only) if each.negated and each.columns == "*"]
        included = [each for each in self.only if not each.negated]
        return any(fnmatch(stream, each.streams) for each in excluded) or (
            bool(included) and not any(fnmatch(stream, each.streams) for each in included)
        )


def selected_streams(environment: Mapping[str, str] = os.environ) -> SelectedStreams | None:
    """Return what Meltano was asked to select; None if Meltano isn't the caller, or if the user gave a catalog."""
    if environment.get(f"{_EXTRA}CATALOG"):
        return None
    try:
        select, only, metadata = (
            json.loads(environment.get(f"{_EXTRA}{name}") or empty)
            for name, empty in (("SELECT", "[]"), ("SELECT_FILTER", "[]"), ("METADATA", "{}"))
        )
        if not select:
            return None
        return SelectedStreams(
            tuple(map(Pattern.parse, select)),
            tuple(map(Pattern.parse, only)),
            tuple(stream for stream, values in metadata.items() if isinstance(values, dict) and "selected" in values),
            tuple(stream for stream in metadata if not _is_pattern(stream)),
        )
    except (ValueError, TypeError, AttributeError):
        return None


def refuse_none() -> None:
    """Refuse a run that would read no stream, unless `select` says so with patterns that only leave out.

    Raises:
        SettingInvalidError: no stream is selected.
    """
    found = selected_streams()
    if found is not None and all(pattern.negated for pattern in found.select):
        return
    msg = (
        "No stream is selected, so nothing is read: name the tables to read under `select`, as SCHEMA-TABLE.*, or let "
        "`tidemark onboard` propose them."
    )
    raise SettingInvalidError(msg)


def selected_by_run() -> SelectedStreams | None:
    """Return what the run selects for which Meltano discovers now; None if everything must be described.

    Meltano doesn't say what it discovers for, so this reads the parent's command line. A catalog that Meltano caches
    for the next run must also contain what may be selected by then.
    """
    if os.environ.get(f"{_EXTRA}USE_CACHED_CATALOG") != "false":
        return None
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")
    except (OSError, ValueError):
        # not Linux
        return None
    names = [argument for argument in command if argument in _RUNNING | _OTHERS]
    return (
        selected_streams()
        if names and names[0] in _RUNNING and any("meltano" in argument for argument in command)
        else None
    )
