"""The loads of a run: each source on its own, so that one that fails stops only what is built on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemark.errors import TidemarkError
from tidemark.local import databases
from tidemark.run.events import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.outcome import BlockOutcome, RunOutcome


def try_own(project: Project, loads: Mapping[SourceDefinition, BlockOutcome]) -> list[SourceDefinition]:
    """Connect to the user's own databases. The load of an unreachable source has then failed; return the other sources.

    Raises:
        TidemarkError: the warehouse is unreachable, or every source.
    """
    databases.try_own(project, ())
    errors = []
    for source, block in loads.items():
        try:
            databases.try_own(project, [source])
        except TidemarkError as error:
            errors.append(error)
            block.success = False
            block.failures.append(Failure.of(error))
    if errors and len(errors) == len(loads):
        raise errors[0]
    return [source for source, block in loads.items() if block.success is None]


def in_turn(outcome: RunOutcome, loads: int, meltano: Callable[[Sequence[BlockOutcome]], RunOutcome]) -> None:
    """Run all blocks of `outcome`, although Meltano ends with the first that fails.

    After a load that failed, Meltano is started again for what is left. Models are built if any load succeeded.

    Args:
        loads: how many of the blocks load a source. They come first, and may have failed already.
        meltano: runs blocks in order, up to the first that fails.
    """
    pending = [block for block in outcome.blocks if block.success is None]
    while pending:
        outcome.add(meltano(pending))
        failed = next((place for place, block in enumerate(pending) if not block.success), len(pending))
        pending = pending[failed + 1 :]
        of_sources = outcome.blocks[:loads]
        if all(block.success is not None for block in of_sources) and not any(block.success for block in of_sources):
            return
        if any(block.success is False for block in outcome.blocks[loads:]):
            return


def failed(loads: Mapping[SourceDefinition, BlockOutcome]) -> list[SourceDefinition]:
    """Return the sources whose loads have failed so far."""
    return [source for source, block in loads.items() if block.success is False]
