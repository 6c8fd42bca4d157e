"""Decides which backups have expired. Pure: no I/O."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidemark.backup.manifest import PARTIAL, began

if TYPE_CHECKING:
    from collections.abc import Iterable

# by then the process that wrote it has ended
_LEFT_OVER = timedelta(days=1)


def expired(names: Iterable[str], *, now: datetime, keep: int | None, keep_days: float | None) -> list[str]:
    """Return which of one pipeline's good backups have expired, the oldest first.

    A backup stays if one of the rules keeps it: it is among the newest `keep`, or at most `keep_days` old. Without a
    rule all stay, and the newest always stays.
    """
    if keep is None and keep_days is None:
        return []
    newest_first = sorted(names, reverse=True)
    protected = max(keep or 0, 1)
    limit = now - timedelta(days=keep_days) if keep_days is not None else None
    return sorted(name for name in newest_first[protected:] if limit is None or _before(name, limit))


def abandoned(names: Iterable[str], *, now: datetime) -> list[str]:
    """Return the incomplete backups that no process can still be writing."""
    return sorted(name for name in names if _before(name, now - _LEFT_OVER))


def _before(name: str, instant: datetime) -> bool:
    when = began(name.removesuffix(PARTIAL))
    return when is not None and when < instant
