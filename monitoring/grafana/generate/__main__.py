"""Writes the dashboards: `python -m monitoring.grafana.generate DIRECTORY DIRECTORY_OF_THE_DEMO`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.grafana.generate.databases import databases
from monitoring.grafana.generate.models import models
from monitoring.grafana.generate.overview import overview
from monitoring.grafana.generate.shop import shop
from monitoring.grafana.generate.streams import streams

BOARDS = (overview, streams, models, databases)
# they read the demo shop's marts
DEMO_BOARDS = (shop,)


def main(directory: Path, demo_directory: Path) -> None:
    """Write a file for each dashboard."""
    for make in (*BOARDS, *DEMO_BOARDS):
        made = make()
        text = json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        to = demo_directory if make in DEMO_BOARDS else directory
        (to / f"{str(made.uid).removeprefix('tidemark-')}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
