"""The pools that bound what runs at once: by default one task reads the source, and one builds in the warehouse.

What is in the same pool waits for its turn, rather than being refused by the locks of the warehouse.
"""

from __future__ import annotations

SOURCE = "tidemark_source"
WAREHOUSE = "tidemark_warehouse"
# Airflow's own, for what waits for nobody
NONE = "default_pool"

SLOTS = {SOURCE: 1, WAREHOUSE: 1}
DESCRIPTIONS = {
    SOURCE: "Tasks that read the source database: loads, backfills, comparisons.",
    WAREHOUSE: "Tasks that build or test the warehouse's models.",
}
