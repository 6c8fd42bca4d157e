"""What processes of a run tell the one that follows the run: JSON lines in a file, whose path is in the environment.

Meltano hands on what a tap or target logs as JSON, and takes what its utilities print for text. So dbt's wrapper and
`tidemark`, when they are commands of a run, write here what the runner has to know.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "TIDEMARK_RUN_EVENTS"


def emit(**fields: Any) -> None:
    """Append one line with these fields; nothing where no run is followed."""
    if path := os.environ.get(VARIABLE):
        # in one write of less than a page, so that lines of several processes don't mix
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields, default=str) + "\n")
