# ruff: noqa: INP001 - the build backend runs it
"""Adds to the wheel what a release brings into a project, and what is in no Python package: see tidemark.release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ReleaseFiles(BuildHookInterface):
    """Finds the files in the clone that the wheel is built from."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name them; an editable installation reads them in the clone."""
        if version == "editable":
            return
        package = Path(self.root, "src", "tidemark", "release")
        sys.path.insert(0, str(package.parents[1]))
        from tidemark.release import contents  # noqa: PLC0415

        for path, name in contents.packaged(contents.repository()):
            build_data["force_include"][str(path)] = f"tidemark/release/{name}"
