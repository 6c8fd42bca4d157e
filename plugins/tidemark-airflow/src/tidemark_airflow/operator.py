"""The task of a DAG: runs some blocks of `meltano run` through `tidemark run`, and copies its lines to the log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from tidemark_airflow import assets, process
from tidemark_airflow.alerts import callbacks
from tidemark_airflow.failures import failure_of
from tidemark_airflow.run_ids import run_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Asset, Context


class TidemarkOperator(BaseOperator):
    """Runs `tidemark ARGUMENTS` and returns its report, as `tidemark run --json` prints it.

    Args:
        arguments: such as `run dbt-postgres:run`, or a function that computes them from the run's params.
        env: environment variables for the command.
        asset: gets an event if the run succeeds and its rows moved since its last event.
        part: the sources that this event is about; empty for all.
        tells: whether this task writes the event; otherwise one after it does.

    Raises:
        AirflowSkipException: there is nothing to do: `arguments` returned none.
        RunFailed: the command failed; has the code of the error.
    """

    ui_color = "#d7ecec"

    def __init__(
        self,
        *,
        arguments: Sequence[str] | Callable[[Mapping[str, Any]], Sequence[str]],
        env: Mapping[str, str] | None = None,
        asset: Asset | None = None,
        part: str = "",
        tells: bool = True,
        **kwargs: Any,
    ) -> None:
        # not the alias: the DAG processor, which sends alerts, would wait for its assets for ever (3.3.2)
        events = {"inlets": [asset] if asset else [], "outlets": [assets.alias(asset)] if asset and tells else []}
        super().__init__(**{**events, **kwargs})
        self.arguments = arguments
        self.env = dict(env or {})
        self.asset = asset
        self.part = part
        self.tells = tells
        self._run: process.Run | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the command."""
        ti = context["ti"]
        identifier = run_id_of(ti.dag_id, ti.run_id)
        arguments = self.arguments(context["params"]) if callable(self.arguments) else self.arguments
        if not arguments:
            msg = "There is nothing to do here."
            raise AirflowSkipException(msg)
        self.log.info("The run begins: run_id=%s, command=tidemark %s", identifier, " ".join(arguments))
        root = Path(os.environ["MELTANO_PROJECT_ROOT"])
        command, *rest = arguments
        options = [f"--run-id={identifier}"]
        if self.asset and (since := assets.last_told(context, self.asset, self.part)):
            options.append(f"--moved-since={since}")
        with process.run(root, [command, *options, *rest], self.env) as self._run:
            for level, text in self._run.lines():
                getattr(self.log, level if level in {"debug", "warning", "error"} else "info")("%s", text)
            status, report = self._run.status, self._run.report
        if report is None or status:
            raise failure_of(status, report or {}, self._run.error)
        if self.tells:
            if self.asset:
                assets.tell(context, self.asset, self.part, report)
            callbacks.changed_shape(context, report["schema_changes"])
        return report

    def on_kill(self) -> None:
        """End the command, because the task was told to end."""
        if self._run:
            self._run.stop()
