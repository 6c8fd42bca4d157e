"""Turns the output of a failed PostgreSQL program into one line for a person."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# the last two come from writes that had room for only a part
_DISK_FULL = ("No space left on device", "Disk quota exceeded", "Check free disk space", "wrote only")
_REASON = re.compile(r"(?:FATAL|PANIC|ERROR|initdb: error|pg_ctl: error|could not [^\n]*):?\s*(.*)")


def server_error(said: str, *, program: str, side: str, directory: Path) -> str:
    """Return why `program` failed for the server of `side`, whose files are in `directory`.

    Args:
        said: the program's output, and the server's log.
    """
    if any(sign in said for sign in _DISK_FULL):
        free = shutil.disk_usage(directory).free // 2**20
        return (
            f"The {side} server can't write to {directory}: the disk is full ({free} MiB free); "
            "free some space and run this again. Nothing was deleted."
        )
    if "is still in use" in said and "shared memory" in said:
        return (
            f"Processes of the {side} server that died are still running on {directory}; "
            "end them (`ps -ef | grep postgres` shows them), then run this again."
        )
    reasons = [line.strip() for line in said.splitlines() if _REASON.search(line)]
    reason = _strip(reasons[0]) if reasons else (said.strip().splitlines() or ["it printed nothing"])[-1]
    log = directory / "server.log"
    return f"{program} failed for the {side} server: {reason}{f'; see {log}' if log.exists() else ''}."


def _strip(line: str) -> str:
    """Remove a log line's timestamp, pid and severity."""
    return re.sub(r"^.*?(?:FATAL|PANIC|ERROR|error):\s*", "", line)
