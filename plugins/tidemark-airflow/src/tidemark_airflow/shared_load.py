"""A load that several runs share: one mapped task, and one after it that tells other DAGs of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from tidemark_airflow import assets
from tidemark_airflow.alerts import callbacks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Asset, Context


def arguments(blocks: Sequence[str], shards: int) -> list[list[str]]:
    """Return the arguments of each run."""
    return [["run", f"--shard={number}/{shards}", *blocks] for number in range(1, shards + 1)]


class LoadedOperator(BaseOperator):
    """Writes one event for all runs that shared a load: each event of an asset starts the DAGs that wait for it.

    Args:
        reports: those of the runs, as `TidemarkOperator` returns them.
        asset, part: as for `TidemarkOperator`.
    """

    template_fields: Sequence[str] = ("reports",)
    ui_color = "#d7ecec"

    def __init__(self, *, reports: Any, asset: Asset, part: str = "", **kwargs: Any) -> None:
        super().__init__(outlets=[assets.alias(asset)], **kwargs)
        self.reports = reports
        self.asset = asset
        self.part = part

    def execute(self, context: Context) -> None:
        """Write it."""
        reports: list[Mapping[str, Any]] = list(self.reports)
        moved = [report["rows_moved"] for report in reports]
        # The runs have one id, so the history counts all their rows, and each report those that were there at its end.
        report = {
            "run_id": reports[0]["run_id"],
            "rows_moved": None if None in moved else max(moved),
            "as_of": max((report["as_of"] for report in reports if report["as_of"]), default=None),
        }
        assets.tell(context, self.asset, self.part, report)
        changes = [change for each in reports for change in each["schema_changes"]]
        callbacks.changed_shape(context, list(dict.fromkeys(changes)))
