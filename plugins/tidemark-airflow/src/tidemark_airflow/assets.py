"""Assets that schedule other DAGs: the raw tables, and the marts after their tests.

An event means that rows moved. Airflow writes an event for each outlet of a successful task. So outlets are aliases,
which get an asset only if rows moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

RAW = Asset(name="raw", uri="tidemark://warehouse/raw")
MARTS = Asset(name="marts", uri="tidemark://warehouse/marts")

# how many events to look through for the last one of a part
_LATEST = 200


def alias(asset: Asset) -> AssetAlias:
    """Return the outlet of a task that may write `asset`."""
    return AssetAlias(f"{asset.name} moved")


def last_told(context: Context, asset: Asset, part: str) -> str | None:
    """Return the time, on the warehouse's clock, up to which earlier events cover rows; None without an event.

    Args:
        part: the sources that the events are about; empty for all.
    """
    for event in context["inlet_events"][asset].ascending(ascending=False).limit(_LATEST):
        if not part or event.extra.get("part", "") in {"", part}:
            return str(event.extra["as_of"]) if event.extra.get("as_of") else None
    return None


def tell(context: Context, asset: Asset, part: str, report: Mapping[str, Any]) -> None:
    """Write an event of `asset` if its rows moved since the last event: in this run, a failed one, or one by hand.

    Also write it if the warehouse does not say how many rows moved.
    """
    if report["rows_moved"] != 0:
        extra = {"rows": report["rows_moved"], "run_id": report["run_id"], "as_of": report["as_of"]}
        if part:
            extra["part"] = part
        context["outlet_events"][alias(asset)].add(asset, extra=extra)
