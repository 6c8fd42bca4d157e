"""The commands that run Meltano blocks (arguments of `meltano run`) and report the result, as text or as JSON."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid4

import typer
from rich.console import Console

from tidemark.errors import UsageError
from tidemark.project.directory import Project
from tidemark.run.end_with_parent import end_with_stdin
from tidemark.run.errors import RunFailedError
from tidemark.run.events import Failure
from tidemark.run.steps import BackfillStep

if TYPE_CHECKING:
    from tidemark.run.progress import Listener
    from tidemark.run.report import RunReport

RunIdOption = Annotated[
    UUID | None,
    typer.Option(help="A UUID that identifies the run in all logs and the history; a new one by default."),
]
AttendedOption = Annotated[
    bool, typer.Option("--attended", help="Exit when standard input closes, because the parent process is then gone.")
]
MovedSinceOption = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M:%S%z"],
        help="Also report rows that any run moved since this time: `as_of` of an earlier report.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, and the report last.")]
console = Console(highlight=False)


def run(  # noqa: PLR0913, PLR0917 - the command's options
    block: Annotated[list[str], typer.Argument(help="Such as tap-postgres target-postgres, or dbt-postgres:run.")],
    run_id: RunIdOption = None,
    as_json: JsonOption = False,  # noqa: FBT002
    attended: AttendedOption = False,  # noqa: FBT002
    moved_since: MovedSinceOption = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="SOURCES", help="Have dbt take only what stands on these sources, such as crm+erp."),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="All parts, such as crm,erp,crm+erp; a model is in the smallest that fits."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Have tidemark:reconcile or tidemark:check look at this source alone."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="N/OF", help="Share a load: 2/4 is the second of four runs, on any machines."),
    ] = None,
) -> None:
    """Run blocks of `meltano run`, then report the result."""
    from tidemark.run import blocks, sharded  # noqa: PLC0415
    from tidemark.run.shard import Shard  # noqa: PLC0415

    if attended:
        end_with_stdin()
    if bool(part) is not bool(parts):
        raise UsageError("--part and --parts belong together: name one part, and the list of all.")
    say, project, identifier = _listener(as_json), Project.find(), str(run_id or uuid4())
    if shard is not None:
        if part or source:
            raise UsageError("--shard is for a load, --part for models, and --source for commands: use one of them.")
        _tell(
            sharded.run(project, block, Shard.parse(shard), run_id=identifier, say=say, moved_since=moved_since),
            say,
            as_json,
        )
        return
    report = blocks.run(
        project,
        block,
        run_id=identifier,
        say=say,
        part=(part, parts) if part and parts else None,
        source=source,
        moved_since=moved_since,
    )
    _tell(report, say, as_json)


def follow(
    source: Annotated[str | None, typer.Argument(help="The source; not needed if there is one.")] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="How long each run lasts; its outcome is in the history then.")
    ] = 3600,
    as_json: JsonOption = False,  # noqa: FBT002
) -> None:
    """Follow the log of a source's LOG_BASED streams, run after run, until Ctrl-C or SIGTERM ends it in seconds."""
    from tidemark.run.display import Display  # noqa: PLC0415
    from tidemark.run.follow import follow as run_  # noqa: PLC0415

    say = _listener(as_json)
    with nullcontext() if as_json else Display(console).kept("Following") as show:
        for report in run_(Project.find(), source, seconds=seconds, say=say, show=show):
            _tell(report, say, as_json)


def backfill(  # noqa: PLR0913 - the command's options
    stream: Annotated[list[str], typer.Argument(help="Such as public-orders or crm/public-orders.")],
    *,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="The streams' source.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="Read rows with this replication key or later.")] = None,
    after: Annotated[str | None, typer.Option("--to", help="Read rows with a replication key before this.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Read all rows, also those without a replication key: a full refresh.")
    ] = False,
    build: Annotated[
        bool, typer.Option("--build", help="Then build and test the models that depend on these streams.")
    ] = False,
    step: Annotated[
        BackfillStep | None, typer.Option(help="Run only this step, as one task of a scheduler; the load by default.")
    ] = None,
    run_id: RunIdOption = None,
    as_json: JsonOption = False,
    attended: AttendedOption = False,
    moved_since: MovedSinceOption = None,
) -> None:
    """Read rows of some streams again. Their bookmarks neither limit this nor move."""
    from singer_postgres.core.source.backfill import Backfill  # noqa: PLC0415
    from tidemark.run.backfill import backfill as run_  # noqa: PLC0415

    if attended:
        end_with_stdin()
    asked = Backfill(first, after)
    if every is not asked.is_all:
        raise UsageError("Say which rows to read: --all, or --from, or --to, or both --from and --to.")
    if build and step:
        raise UsageError("--build runs all steps and --step runs one of them; use only one of the two options.")
    steps = tuple(BackfillStep) if build else (step or BackfillStep.load,)
    say = _listener(as_json)
    report = run_(
        Project.find(),
        stream,
        asked,
        steps=steps,
        run_id=str(run_id or uuid4()),
        say=say,
        moved_since=moved_since,
        source=source,
    )
    _tell(report, say, as_json)


def _listener(as_json: bool) -> Listener:  # noqa: FBT001 - as the option is
    def say(level: str, text: str) -> None:
        if as_json:
            sys.stdout.write(json.dumps({"level": level, "text": text}) + "\n")
            sys.stdout.flush()
        elif level != "debug":
            colour = {"warning": "yellow", "error": "red"}.get(level, "")
            console.print(text, style=colour, markup=False, soft_wrap=True)

    return say


def _tell(report: RunReport, say: Listener, as_json: bool) -> None:  # noqa: FBT001 - as the option is
    """Print the report.

    Raises:
        TidemarkError: the run failed.
    """
    for line in report.lines():
        say("info", line)
    if as_json:
        sys.stdout.write(json.dumps({"report": report.as_dict()}) + "\n")
    if report.error:
        error = report.error
        failure = Failure(error["message"], error["code"], error["transient"], error["hint"])
        raise RunFailedError(f"{failure.message.rstrip('.')}. What to do: docs/runbook.md#{failure.code}.", failure)


def pipeline(
    scale: Annotated[
        float | None,
        typer.Option(min=0.0001, help="Scale of the demo shop, if it is not loaded yet [default: 0.01]."),
    ] = None,
) -> None:
    """Run the whole job: servers, demo shop, extract and load of all sources, models, tests; then print a summary."""
    from tidemark.run.pipeline import run as run_pipeline  # noqa: PLC0415

    run_pipeline(Project.find(), console, scale=scale)


def meltano(context: typer.Context) -> None:
    """Run Meltano's own command line. It then also writes below TIDEMARK_WORK_DIR."""
    project = Project.find()
    os.chdir(project.root)
    os.execv(project.meltano, [str(project.meltano), *context.args])  # noqa: S606
