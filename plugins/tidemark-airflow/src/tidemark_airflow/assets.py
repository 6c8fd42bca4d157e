"""What other DAGs can be scheduled on: the raw tables, and the marts once they are tested.

An event is for rows that moved. Airflow writes one for each outlet of a task that ends well, so outlets are aliases,
which get an asset only where there is something to tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.sdk import Context

RAW = Asset(name="raw", uri="tidemark://warehouse/raw")
MARTS = Asset(name="marts", uri="tidemark://warehouse/marts")


def alias(asset: Asset) -> AssetAlias:
    """Return what a task that may write `asset` has for outlet."""
    return AssetAlias(f"{asset.name} moved")


def tell(context: Context, asset: Asset, reports: Iterable[Mapping[str, Any] | None]) -> None:
    """Write an event of `asset` if rows of it moved, by the reports of what writes it.

    Rows that an earlier try or run moved, and then failed before it could tell, are told now. So are those of a run
    whose warehouse would not say how many there were.
    """
    found = [report for report in reports if report is not None]
    moved = [report.get("rows_moved") for report in found]
    if any(moved) or None in moved or _owed(context):
        extra = {"run_id": found[0]["run_id"] if found else None, "rows": sum(each or 0 for each in moved)}
        context["outlet_events"][alias(asset)].add(asset, extra=extra)


def _owed(context: Context) -> bool:
    ti = context["ti"]
    if ti.try_number > 1:
        return True
    previous = ti.get_previous_ti()
    return previous is not None and previous.state != "success"
