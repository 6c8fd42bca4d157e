"""The steps of a backfill, and the Meltano blocks of each. Pure: no I/O here."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tidemark.project.sources import SourceDefinition


class BackfillStep(StrEnum):
    """The steps, in order."""

    load = "load"
    build = "build"
    test = "test"

    def blocks(self, sources: Iterable[SourceDefinition]) -> list[str]:
        """Return the arguments of `meltano run` that do this step with streams of these sources."""
        if self is BackfillStep.load:
            return [name for source in sources for name in (source.tap, source.target)]
        return ["dbt-postgres:touched" if self is BackfillStep.build else "dbt-postgres:touched-test"]
