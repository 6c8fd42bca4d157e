"""Loads a source that is on board, compares it with the warehouse, and builds and tests its models."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidemark.errors import RowsDifferError, TidemarkError
from tidemark.inspect import slots
from tidemark.inspect.check import streams
from tidemark.inspect.reconcile.run import ReconcileOptions, reconcile
from tidemark.local import databases
from tidemark.onboard.generated import MODELS
from tidemark.onboard.words import listed
from tidemark.project import sources
from tidemark.run.errors import RunFailedError
from tidemark.run.outcome import BlockOutcome
from tidemark.run.progress import StepProgress
from tidemark.run.runner import RunPlan, started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tidemark.inspect.reconcile.result import ReconcileResult
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.display import Display
    from tidemark.run.outcome import RunOutcome

_BUILD, _TEST = "dbt-postgres:touched", "dbt-postgres:touched-test"


@dataclass
class FirstRun:
    """What was done.

    Attributes:
        rows: rows that were read, by source and stream.
        compared: the comparison, by source and stream.
        models: how many models were built.
        tests: how many tests `passed` and `warned`.
        failed: a step failed.
    """

    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    compared: dict[tuple[str, str], ReconcileResult] = field(default_factory=dict)
    models: int = 0
    tests: dict[str, int] = field(default_factory=dict)
    failed: bool = False

    @property
    def differing(self) -> list[str]:
        """The streams that differ or could not be compared."""
        return [result.name for result in self.compared.values() if not result.equal]


def run(project: Project, source: SourceDefinition, display: Display, done: FirstRun) -> StoppedError | None:
    """Do everything in turn. Return the error of the first step that failed, with how far it got; None if none did."""
    so_far = "the files are written"
    for step, then in ((_load, "all tables are loaded"), (_compare, "all tables are equal"), (_build, "")):
        try:
            step(project, source, display, done)
        except TidemarkError as error:
            done.failed = True
            return StoppedError(error, so_far)
        so_far = f"{so_far}, {then}"
    return None


def _load(project: Project, source: SourceDefinition, display: Display, done: FirstRun) -> None:
    """Load a source and its pairs. What their LOG_BASED streams need in the source is made first.

    Raises:
        RunFailedError: a stream failed.
        TidemarkError: a database can't be reached.
    """
    for each in sources.with_pairs(project, source):
        if streams.follows_log(streams.configuration(project, each)):
            with display.step("Make slot") as step:
                made = list(slots.create(project, each))
                step.say(f"{len(made)} statements were run" if made else "it is there")
    loads = {
        each: BlockOutcome(each.blocks, f"Load {each.name}", source=f"{each.name}/")
        for each in sources.with_pairs(project, source)
    }
    outcome = _run(project, loads, list(loads.values()), display)
    for stream, rows in (item for block in loads.values() for item in outcome.loaded(block).items()):
        name, _, plain = stream.partition("/")
        done.rows[name, plain] = rows["read"]
    _refuse(project, outcome)


def _compare(project: Project, source: SourceDefinition, display: Display, done: FirstRun) -> None:
    """Compare all rows of a source and its pairs with those of the warehouse.

    Raises:
        TidemarkError: a database can't be reached.
        RowsDifferError: a table differs.
    """
    with display.step("Compare") as step:
        for each in sources.with_pairs(project, source):
            results = reconcile(
                project,
                ReconcileOptions(source=each.name),
                began=step.say,
                warn=lambda _: None,
            )
            done.compared |= {(each.name, result.stream): result for result in results}
        equal = sum(result.equal for result in done.compared.values())
        step.failed = bool(done.differing)
        step.say(f"{equal} of {len(done.compared)} tables equal")
    if differing := done.differing:
        raise RowsDifferError(f"{listed(differing)} differ or could not be compared; `tidemark reconcile` shows how")


def _build(project: Project, source: SourceDefinition, display: Display, done: FirstRun) -> None:
    """Build and test the models of a source.

    Raises:
        RunFailedError: a model or a test failed.
    """
    folders = [f"{layer}/{source.name}" for layer in ("staging", "marts")]
    there = [f"path:models/{each}" for each in folders if (project.root / MODELS / each).is_dir()]
    blocks = [
        BlockOutcome(_BUILD, "Build models", "models built"),
        BlockOutcome(_TEST, "Test", "tests passed"),
    ]
    outcome = _run(project, {}, blocks, display, more={"DBT_TOUCHED": " ".join(there)})
    built, tested = outcome.blocks
    done.models = built.passed
    done.tests = {"passed": tested.passed, "warned": tested.warned, "failed": len(tested.failed_nodes)}
    _refuse(project, outcome)


def _run(
    project: Project,
    loads: Mapping[SourceDefinition, BlockOutcome],
    blocks: Sequence[BlockOutcome],
    display: Display,
    *,
    more: Mapping[str, str] | None = None,
) -> RunOutcome:
    def plan(_: list[str]) -> RunPlan:
        found, warehouse = databases.bring_up_all(project, loads)
        databases.try_own(project, loads)
        return RunPlan(blocks, loads, (found, warehouse))

    def warn(text: str) -> None:
        display.console.print(f"! {text}", style="yellow", soft_wrap=True, markup=False)

    arguments = " ".join(block.names for block in blocks).split()
    with started(project, arguments, plan, run_id=str(uuid.uuid4()), warn=warn) as begun:
        begun.run(StepProgress(display), more=more)
    return begun.outcome


def _refuse(project: Project, outcome: RunOutcome) -> None:
    if failure := outcome.failure():
        log = project.run_log
        log = log.relative_to(project.root) if log.is_relative_to(project.root) else log
        raise RunFailedError(
            f"{outcome.culprit.title} failed: {failure.message.rstrip('.')}. Full log: {log}. "
            f"What to do: docs/runbook.md#{failure.code}",
            failure,
        )


class StoppedError(TidemarkError):
    """Onboarding stopped at a step. The error has the code of its cause."""

    def __init__(self, cause: TidemarkError, how_far: str) -> None:
        """Remember the cause.

        Args:
            how_far: what is done, in words.
        """
        super().__init__(f"{str(cause).rstrip('.')}. So far {how_far}; running the same command again continues there.")
        self._cause = cause
        self.status = cause.status
        self.is_logged = getattr(cause, "is_logged", False)

    def fields(self) -> dict[str, object]:
        """Return the cause's fields."""
        return self._cause.fields()
