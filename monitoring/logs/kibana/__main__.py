"""Writes monitoring/logs/kibana/tidemark.ndjson: python -m monitoring.logs.kibana."""

from __future__ import annotations

from pathlib import Path

from monitoring.logs.kibana.objects import ndjson

(Path(__file__).parent / "tidemark.ndjson").write_text(ndjson(), encoding="utf-8")
