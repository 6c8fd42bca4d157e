"""Which streams a tap selects, by the patterns of its `select`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from singer_postgres.core.source.selected_streams import Pattern
from tidemark.project import meltano_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meltano.core.project import Project as MeltanoProject


def selects(meltano: MeltanoProject, tap: str) -> Callable[[str], bool]:
    """Return a function that tells whether a tap selects a stream.

    Raises:
        UsageError: there is no such tap.
    """
    _, service = meltano_project.plugin(meltano, tap)
    patterns = [Pattern.parse(text) for text in service.get("_select")]
    chosen = [each.streams for each in patterns if not each.negated]
    excluded = [each.streams for each in patterns if each.negated and each.columns == "*"]
    return lambda stream: _matches(stream, chosen) and not _matches(stream, excluded)


def _matches(stream: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(stream, pattern) for pattern in patterns)
