"""The result of one stream's comparison and repair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from singer_postgres.core.warehouse.row_counts import RowCounts
    from tidemark.inspect.reconcile.compare import Difference
    from tidemark.project.sources import SourceDefinition


@dataclass(frozen=True)
class ReconcileResult:
    """One stream's result, or the error that prevented it.

    Attributes:
        found: the differences before a repair.
        repaired: the rows that a repair wrote.
        left: the differences that remain after the repair.
        why: the reason why they remain, if known.
    """

    source: SourceDefinition
    stream: str
    found: Difference | None = None
    repaired: RowCounts | None = None
    left: Difference | None = None
    why: str = ""
    error: str | None = None

    @property
    def name(self) -> str:
        """The stream's name, with its source's if there are several."""
        return self.source.shown(self.stream)

    @property
    def equal(self) -> bool:
        """Whether both databases have the same rows now, apart from those that the next run will load."""
        return self.found is not None and (self.left or self.found).equal
