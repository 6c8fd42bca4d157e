"""The rules of Prometheus, as they are in monitoring/prometheus/rules."""

from __future__ import annotations

import yaml

from tests.conftest import REPOSITORY

PROMETHEUS = REPOSITORY / "monitoring" / "prometheus"
RULES = [
    rule
    for path in sorted(PROMETHEUS.glob("rules/*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
