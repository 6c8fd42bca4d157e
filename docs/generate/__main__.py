"""Writes the generated reference pages into a directory: `python docs/generate docs/reference`."""

from __future__ import annotations

import sys
from pathlib import Path

import error_codes
import metrics
import plugin_settings
import system_tables
import variables

PAGES = {
    "errors.md": error_codes.page,
    "settings.md": plugin_settings.page,
    "variables.md": variables.page,
    "tables.md": system_tables.page,
    "metrics.md": metrics.page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(sys.argv[1]) / name).write_text(page(), encoding="utf-8")
