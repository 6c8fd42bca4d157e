"""Positions in the write-ahead log (LSN), as text and as numbers."""

from __future__ import annotations


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
