"""Which shard of a load a run is, such as the second of four: `--shard 2/4`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidemark.errors import UsageError
from tidemark.project.schedules import MOST_SHARDS


@dataclass(frozen=True)
class Shard:
    """One of several runs that share a load."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse `2/4`.

        Raises:
            UsageError: it is no shard.
        """
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count <= MOST_SHARDS:
            raise UsageError(
                f"--shard is {text!r}; write the number of this run, and how many there are, such as 2/4 (at most "
                f"{MOST_SHARDS}): each of four runs has another number from 1 to 4."
            )
        return cls(number, count)

    def __str__(self) -> str:
        """Return it as the option has it."""
        return f"{self.number}/{self.count}"

    @property
    def name(self) -> str:
        """Its name in Meltano's ids, and of its directory."""
        return f"{self.number}-of-{self.count}"
