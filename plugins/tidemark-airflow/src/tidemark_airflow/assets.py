"""What other DAGs can be scheduled on: the raw tables, and the marts once they are tested.

An event is for rows that moved. Airflow writes one for each outlet of a task that ends well, so outlets are aliases,
which get an asset only where there is something to tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

RAW = Asset(name="raw", uri="tidemark://warehouse/raw")
MARTS = Asset(name="marts", uri="tidemark://warehouse/marts")


def alias(asset: Asset) -> AssetAlias:
    """Return what a task that may write `asset` has for outlet."""
    return AssetAlias(f"{asset.name} moved")


def last_told(context: Context, asset: Asset) -> str | None:
    """Return up to when the events that there are tell of rows, by the warehouse's clock; None if there are none."""
    events = context["inlet_events"][asset].ascending(ascending=False).limit(1)
    return events[0].extra.get("as_of") if len(events) else None


def tell(context: Context, asset: Asset, report: Mapping[str, Any]) -> None:
    """Write an event of `asset` if rows of it moved since the last: in this run, in one that failed, in one by hand.

    So it does if the warehouse would not say how many there were.
    """
    if report["rows_moved"] != 0:
        extra = {"rows": report["rows_moved"], "run_id": report["run_id"], "as_of": report["as_of"]}
        context["outlet_events"][alias(asset)].add(asset, extra=extra)
