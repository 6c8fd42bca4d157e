"""Where the process starts: what must be known before dbt's second of imports."""

from __future__ import annotations

import gc
import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run dbt."""
    # whoever started this may be gone when dbt is there
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # what dbt parses lives as long as it does: to look through that for cycles takes a tenth of its time
    gc.set_threshold(200_000, 20, 100)
    from tidemark_dbt.command import run  # noqa: PLC0415

    run(starter=parent if "MELTANO_PROJECT_ROOT" in os.environ else None)
