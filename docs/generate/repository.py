"""Where things are, and programs of the plugins' environments."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def asked(plugin: str, program: str) -> Any:
    """Return the JSON that `program` prints in the environment of a plugin, such as `utilities/airflow`."""
    python = ROOT / ".meltano" / plugin / "venv" / "bin" / "python"
    done = subprocess.run([python, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def row(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
