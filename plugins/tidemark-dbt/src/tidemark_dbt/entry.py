"""The start of the process: what must happen before dbt's imports, which take a second."""

from __future__ import annotations

import gc
import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run dbt."""
    # read it now: the parent may have ended by the time dbt is imported
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # dbt's parsed objects live as long as the process: searching them for cycles takes a tenth of its time
    gc.set_threshold(200_000, 20, 100)
    from tidemark_dbt.command import run  # noqa: PLC0415

    run(starter=parent if "MELTANO_PROJECT_ROOT" in os.environ else None)
