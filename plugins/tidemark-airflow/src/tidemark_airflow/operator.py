"""The task of a DAG: some blocks of `meltano run`, by way of `tidemark run`, with its lines in the task's log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from tidemark_airflow import assets, process
from tidemark_airflow.alerts import callbacks
from tidemark_airflow.failures import PermanentFailure, RunFailed
from tidemark_airflow.run_ids import run_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Asset, Context

# sysexits', as `tidemark` ends with them, and what they are called in the runbook
_KINDS = {69: "unreachable", 75: "busy", 78: "usage"}
# what somebody must mend first is as it was at the next try
_STAYS = frozenset({"state", "shape", "tests", "freshness", "reconcile", "usage"})


class TidemarkOperator(BaseOperator):
    """Runs `tidemark ARGUMENTS`; returns its report, as `tidemark run --json` prints it.

    Args:
        arguments: such as `run dbt-postgres:run`; or what makes them of the run's params.
        env: variables for it.
        asset: is told of when it ends well and rows of it moved since it was told of last.

    Raises:
        RunFailed: it failed, with the kind of failure as docs/runbook.md has it.
    """

    ui_color = "#d7ecec"

    def __init__(
        self,
        *,
        arguments: Sequence[str] | Callable[[Mapping[str, Any]], Sequence[str]],
        env: Mapping[str, str] | None = None,
        asset: Asset | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            # not the alias: the DAG processor, which sends alerts, would ask for its assets and wait for ever (3.3.2)
            inlets=[asset] if asset else [],
            outlets=[assets.alias(asset)] if asset else [],
            **kwargs,
        )
        self.arguments = arguments
        self.env = dict(env or {})
        self.asset = asset
        self._run: process.Run | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Run it."""
        ti = context["ti"]
        identifier = run_id_of(ti.dag_id, ti.run_id)
        arguments = self.arguments(context["params"]) if callable(self.arguments) else self.arguments
        self.log.info("tidemark %s", " ".join(arguments))
        self.log.info("Run %s, by which logs/meltano.jsonl and raw._tidemark_runs know it", identifier)
        root = Path(os.environ["MELTANO_PROJECT_ROOT"])
        command, *rest = arguments
        options = [f"--run-id={identifier}"]
        if self.asset and (since := assets.last_told(context, self.asset)):
            options.append(f"--moved-since={since}")
        with process.run(root, [command, *options, *rest], self.env) as self._run:
            for level, text in self._run.lines():
                getattr(self.log, level if level in {"debug", "warning", "error"} else "info")("%s", text)
            status, report, complaint = self._run.status, self._run.report, self._run.complaint
        if report is None or status:
            raise self._failure(status, report or {}, complaint)
        if self.asset:
            assets.tell(context, self.asset, report)
        callbacks.changed_shape(context, report["schema_changes"])
        return report

    def on_kill(self) -> None:
        """End it: the task was told to."""
        if self._run:
            self._run.stop()

    def _failure(self, status: int, report: dict[str, Any], complaint: str) -> RunFailed:
        reason = report.get("reason") or complaint.removeprefix("error: ")
        kind = report.get("kind") or _KINDS.get(status)
        if kind is None:
            # by a signal, or as `tidemark` ends on one
            killed = status < 0 or status > 128  # noqa: PLR2004 - the shell's convention
            kind = "killed" if killed else "other"
            reason = reason or f"tidemark ended with status {status} and did not say why"
        return (PermanentFailure if kind in _STAYS else RunFailed)(reason, kind, report)
