"""The steps of a backfill, and the Meltano blocks of each. Pure: no I/O here."""

from __future__ import annotations

from enum import StrEnum


class BackfillStep(StrEnum):
    """The steps, in order."""

    load = "load"
    build = "build"
    test = "test"

    @property
    def blocks(self) -> tuple[str, ...]:
        """The arguments of `meltano run`."""
        return _BLOCKS[self]


_BLOCKS = {
    BackfillStep.load: ("tap-postgres", "target-postgres"),
    BackfillStep.build: ("dbt-postgres:touched",),
    BackfillStep.test: ("dbt-postgres:touched-test",),
}
