"""Pools limit what runs at once. By default one task reads the source, and one builds in the warehouse.

A task waits for a slot in its pool. Without pools, the warehouse's locks would refuse it.
"""

from __future__ import annotations

SOURCE = "tidemark_source"
WAREHOUSE = "tidemark_warehouse"
# Airflow's own pool, for tasks that block nobody
NONE = "default_pool"

SLOTS = {SOURCE: 1, WAREHOUSE: 1}
DESCRIPTIONS = {
    SOURCE: "Tasks that read the source database: loads, backfills, comparisons.",
    WAREHOUSE: "Tasks that build or test the warehouse's models.",
}
