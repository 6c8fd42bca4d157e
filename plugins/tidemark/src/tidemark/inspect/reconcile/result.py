"""What a comparison found of one stream, and what a repair wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from singer_postgres.core.warehouse.row_counts import RowCounts
    from tidemark.inspect.reconcile.compare import Difference


@dataclass(frozen=True)
class ReconcileResult:
    """What came of one stream, or why there is nothing.

    Attributes:
        found: what differs, before a repair.
        repaired: what a repair wrote.
        left: what differs after it, of what it was to repair.
        why: what stands in its way, if that is known.
    """

    stream: str
    found: Difference | None = None
    repaired: RowCounts | None = None
    left: Difference | None = None
    why: str = ""
    error: str | None = None

    @property
    def equal(self) -> bool:
        """Whether both sides are the same now, as far as the next run doesn't make them."""
        return self.found is not None and (self.left or self.found).equal
