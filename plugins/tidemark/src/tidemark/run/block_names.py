"""What `meltano run` makes of its arguments. Pure: no I/O here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def split(blocks: Sequence[str]) -> list[str]:
    """Return each block: a command, or a tap with all up to its target.

    Raises:
        ValueError: a tap has no target, or a target no tap.
    """
    found: list[str] = []
    waiting: list[str] = []
    for name in blocks:
        if ":" in name:
            if waiting:
                raise ValueError(f"{' '.join(waiting)} has no target; write one after it")
            found.append(name)
            continue
        waiting.append(name)
        if name.startswith("target-"):
            if len(waiting) == 1:
                raise ValueError(f"{name} has no tap; write one before it")
            found.append(" ".join(waiting))
            waiting = []
    if waiting:
        raise ValueError(f"{' '.join(waiting)} has no target; write one after it")
    return found
