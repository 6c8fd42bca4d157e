"""A part of a first load that several runs share: the tap's setting `first_load_part`, and what it tells the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from singer_postgres.core.wire import BlockRange

# in the `pgcopy` object of a SCHEMA message
PART = "part"


@dataclass(frozen=True)
class LoadPart:
    """What a run reads of a stream.

    Attributes:
        load_id: identifies the shared load.
        number: the number of the part in it.
        ranges: the ranges of blocks that are not loaded yet.
        watermark: the bookmark that the load leads to.
        columns: what the load's first run read of the table, as `ReadColumns.to_json` gives it; None in that run.
        share: which of how many runs this is, from 0 on: for work on the table that one of them should do.
        begins: this is the load's first run, and `columns` is what it reads: told to the target.
    """

    load_id: str
    number: int
    ranges: tuple[BlockRange, ...] = ()
    watermark: str | None = None
    columns: list[Any] | None = None
    share: tuple[int, int] = (0, 1)
    begins: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LoadPart:
        """Read the setting, or the member of a SCHEMA message.

        Raises:
            KeyError, TypeError, ValueError: it has another form.
        """
        ranges = tuple((int(node), int(first), after) for node, first, after in value.get("ranges", ()))
        share, count = value.get("share", (0, 1))
        watermark, columns, begins = value.get("watermark"), value.get("columns"), bool(value.get("begins"))
        return cls(str(value["load"]), int(value["part"]), ranges, watermark, columns, (int(share), int(count)), begins)

    def to_json(self) -> dict[str, Any]:
        """Return the value for both."""
        return {
            "load": self.load_id,
            "part": self.number,
            "ranges": [list(blocks) for blocks in self.ranges],
            "watermark": self.watermark,
            "columns": self.columns,
            "begins": self.begins,
            "share": list(self.share),
        }
