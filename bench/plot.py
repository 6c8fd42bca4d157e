"""Draws results.svg from results.json, in an environment with matplotlib."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.report import RESULTS
from bench.venvs import venv


def draw(work: Path) -> None:
    """Draw the medians of all data sets."""
    if RESULTS.exists():
        python = venv(work, "plot", ["matplotlib==3.10.7"])
        subprocess.run([python, Path(__file__).with_name("plot_results.py"), RESULTS], check=True)
