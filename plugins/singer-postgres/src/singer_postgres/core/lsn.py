"""Positions in the write-ahead log (LSN), as text and as numbers, and the timelines that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def lsn_text(lsn: int) -> str:
    """Return an LSN as PostgreSQL writes it.

    >>> lsn_text(0x16B3748)
    '0/16B3748'
    """
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_of(text: str) -> int:
    """Parse an LSN.

    >>> lsn_of("1/0")
    4294967296
    """
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def parse_history(text: str) -> tuple[tuple[int, str], ...]:
    r"""Parse a timeline's history file: the timelines before it, each with the position at which the next one began.

    >>> parse_history("1\t0/3000110\tno recovery target specified\n")
    ((1, '0/3000110'),)
    """
    rows = [line.split("\t") for line in text.splitlines() if line[:1].isdigit()]
    return tuple((int(number), end) for number, end, *_ in rows)


def is_in_history(position: str, timeline: int, *, now: int, history: Iterable[tuple[int, str]]) -> bool:
    """Return whether a position of a timeline is also one of the timeline `now`, which has this history.

    >>> is_in_history("0/20", 1, now=2, history=[(1, "0/30")]), is_in_history("0/40", 1, now=2, history=[(1, "0/30")])
    (True, False)
    """
    ends = dict(history)
    return timeline == now or (timeline in ends and lsn_of(position) <= lsn_of(ends[timeline]))
