"""The steps of a backfill, and the blocks of `meltano run` that they are. Pure: no I/O here."""

from __future__ import annotations

from enum import StrEnum


class BackfillStep(StrEnum):
    """What is done, in this order."""

    load = "load"
    build = "build"
    test = "test"

    @property
    def blocks(self) -> tuple[str, ...]:
        """What `meltano run` gets."""
        return _BLOCKS[self]


_BLOCKS = {
    BackfillStep.load: ("tap-postgres", "target-postgres"),
    BackfillStep.build: ("dbt-postgres:touched",),
    BackfillStep.test: ("dbt-postgres:touched-test",),
}
