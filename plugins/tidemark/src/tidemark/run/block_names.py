"""Groups arguments of `meltano run` into Meltano blocks, as Meltano does. Pure: no I/O here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def split(blocks: Sequence[str]) -> list[str]:
    """Return the Meltano blocks: each is a command, or a tap with everything up to its target.

    Raises:
        ValueError: a tap has no target, or a target has no tap.
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
