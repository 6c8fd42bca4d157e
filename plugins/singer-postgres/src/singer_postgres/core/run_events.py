"""Events that a run's processes write for the runner: JSON lines in a file, whose path is in a variable.

Meltano passes on the JSON logs of taps and targets, but treats the output of utilities as text. So dbt's wrapper and
`tidemark`, as commands of a run, write here what the runner needs to know.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "TIDEMARK_RUN_EVENTS"


def emit(**fields: Any) -> None:
    """Append one line with these fields. Without a runner, this does nothing."""
    if path := os.environ.get(VARIABLE):
        # one write of less than a page, so that the lines of several processes don't mix
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields, default=str) + "\n")
