"""Airflow's settings, set before it is imported: the project's own, with a temporary home."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tidemark_airflow import environment

ROOT = Path(__file__).resolve().parents[4]
HOME = tempfile.mkdtemp(prefix="tidemark-airflow-")
# each process has its own, under xdist or not
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ.update(
    environment.compose(
        ROOT,
        {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "TIDEMARK_"))},
            "AIRFLOW_HOME": HOME,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
        },
    )
)
assert "airflow" not in sys.modules
