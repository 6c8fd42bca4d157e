"""Which backups have had their time. Pure: no I/O here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidemark.backup.manifest import PARTIAL, began

if TYPE_CHECKING:
    from collections.abc import Iterable

# by then whoever was writing it is gone
_LEFT_OVER = timedelta(days=1)


def expired(names: Iterable[str], *, now: datetime, keep: int | None, keep_days: float | None) -> list[str]:
    """Return which of these good backups of one pipeline are to go, the oldest first.

    One stays if either rule keeps it: it is among the newest `keep`, or not older than `keep_days`. With neither all
    stay, and the newest always does.
    """
    if keep is None and keep_days is None:
        return []
    newest_first = sorted(names, reverse=True)
    protected = max(keep or 0, 1)
    limit = now - timedelta(days=keep_days) if keep_days is not None else None
    return sorted(name for name in newest_first[protected:] if limit is None or _before(name, limit))


def abandoned(names: Iterable[str], *, now: datetime) -> list[str]:
    """Return which of these backups that were never completed nobody can be writing any more."""
    return sorted(name for name in names if _before(name, now - _LEFT_OVER))


def _before(name: str, instant: datetime) -> bool:
    when = began(name.removesuffix(PARTIAL))
    return when is not None and when < instant
