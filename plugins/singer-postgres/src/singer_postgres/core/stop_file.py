"""How a run that follows the log is asked to end by itself: by a file whose path is in its environment.

A signal would not do: it goes to `meltano run`, which ends tap and target at once, and the run counts as failed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "TIDEMARK_STOP_FILE"
# the pid of the process that would create it: a run ends with its follower, also if that was killed
FOLLOWER = "TIDEMARK_FOLLOWER_PID"
_LOOK_EVERY_S = 0.2


class StopFile:
    """The file of this process's run, if there is one."""

    def __init__(self) -> None:
        """Look at nothing yet."""
        named, pid = os.environ.get(VARIABLE), os.environ.get(FOLLOWER, "")
        self._path = Path(named) if named else None
        self._follower = int(pid) if pid.isdigit() else None
        self._looked_at = 0.0
        self._is_there = False

    def is_there(self) -> bool:
        """Return whether the run is to end. The system is asked a few times a second at most."""
        now = time.monotonic()
        if self._path is not None and not self._is_there and now - self._looked_at >= _LOOK_EVERY_S:
            self._is_there, self._looked_at = self._path.exists() or self._is_left_alone(), now
        return self._is_there

    def _is_left_alone(self) -> bool:
        if self._follower is None:
            return False
        try:
            os.kill(self._follower, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            # of another user
            pass
        return False
