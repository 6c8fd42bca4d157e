"""Creates a virtual environment for each peer when it is first needed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_UV = REPOSITORY / ".venv" / "bin" / "uv"


def venv(work: Path, name: str, packages: Sequence[str]) -> Path:
    """Return the Python of an environment with `packages`.

    Raises:
        subprocess.CalledProcessError: the packages can't be installed; its stderr says why.
    """
    directory = work / "venvs" / name
    stamp = directory / "packages"
    wanted = "\n".join(packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        base = REPOSITORY / ".venv" / "bin" / "python"
        _quiet(_UV, "venv", "--clear", "--python", base, directory)
        _quiet(_UV, "pip", "install", "--compile-bytecode", "--python", directory / "bin" / "python", *packages)
        stamp.write_text(wanted)
    return directory / "bin" / "python"


def _quiet(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
