"""Ends a `meltano run` that was cut short, so that none of its plugins goes on writing."""

from __future__ import annotations

import subprocess
from contextlib import suppress

import psutil

WAIT_S = 15


def end_with_plugins(child: subprocess.Popen[str]) -> None:
    """End `meltano run` and all its plugins: asked first, then killed after WAIT_S."""
    if child.poll() is not None:
        return
    # on SIGTERM, Meltano ends its tap and target but leaves dbt running
    plugins = psutil.Process(child.pid).children(recursive=True)
    child.terminate()
    try:
        # this keeps reading: a child that writes into a full pipe doesn't end
        child.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        # wait for the process, not for the end of its log: a plugin that it left running may hold the log open
        child.wait()
    for plugin in plugins:
        with suppress(psutil.NoSuchProcess):
            plugin.terminate()
    _, stubborn = psutil.wait_procs(plugins, timeout=WAIT_S)
    for plugin in stubborn:
        with suppress(psutil.NoSuchProcess):
            plugin.kill()
