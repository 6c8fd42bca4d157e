"""The commands `tidemark backup …` and `tidemark restore`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tidemark.errors import UsageError
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from tidemark.backup.store import BackupStore

backup_app = typer.Typer(help="Back up the warehouse, Meltano's state and Airflow's metadata, and prove it.")
console = Console(highlight=False)

FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="URL", help="The place of the backups [default: TIDEMARK_BACKUP_TO, or .tidemark/backups]."
    ),
]
NameArgument = Annotated[str, typer.Argument(help="A backup's name.")]
JobsOption = Annotated[
    int | None, typer.Option(min=1, help="How many tables at once [default: TIDEMARK_BACKUP_JOBS, or up to 4].")
]


@backup_app.callback(invoke_without_command=True)
def backup(
    context: typer.Context,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A directory or an fsspec URL [default: TIDEMARK_BACKUP_TO, or .tidemark/backups]."
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="How many backups to keep, the newest ones [default: TIDEMARK_BACKUP_KEEP, or all]."),
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option(help="How many days to keep backups for [default: TIDEMARK_BACKUP_KEEP_DAYS].")
    ] = None,
    jobs: JobsOption = None,
) -> None:
    """Back up everything, or run one of the commands below."""
    if context.invoked_subcommand:
        return
    from tidemark.backup import make, settings, show  # noqa: PLC0415

    if keep_days is not None and keep_days <= 0:
        raise UsageError(f"--keep-days is {keep_days:g}; write a number above 0.")
    project = Project.find()
    found = settings.read(project)
    options = make.BackupOptions(jobs or found.jobs, keep or found.keep, keep_days or found.keep_days)
    place = _store(project, to)
    manifest = make.make(project, place, options, _say)
    _say(f"Backup {manifest.name}: {show.size(manifest.size)} in {manifest.seconds:.1f} s, at {place.name}")


@backup_app.command("list")
def list_(
    where: FromOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """List complete backups, and say which are damaged."""
    from tidemark.backup import show  # noqa: PLC0415

    place = _store(Project.find(), where)
    found = show.listed(place)
    if as_json:
        sys.stdout.write(show.as_json(found) + "\n")
    else:
        show.show(console, found, place)


@backup_app.command()
def verify(name: NameArgument = "latest", where: FromOption = None) -> None:
    """Read each file of a backup and compare its checksum with the manifest's."""
    place = _store(Project.find(), where)
    manifest = place.manifest(place.find(name))
    place.verify(manifest)
    _say(f"{manifest.name}: all {len(manifest.files)} files are unchanged.")


@backup_app.command()
def drill(
    name: NameArgument = "latest",
    where: FromOption = None,
    sync: Annotated[bool, typer.Option(help="Also load from the source into the restored warehouse.")] = True,  # noqa: FBT002
    jobs: JobsOption = None,
) -> None:
    """Restore a backup into a server of its own, compare it with the dump, and sync from the source into it."""
    from tidemark.backup import drill as drill_  # noqa: PLC0415
    from tidemark.backup import settings  # noqa: PLC0415

    project = Project.find()
    drill_.drill(project, _store(project, where), name, jobs=jobs or settings.read(project).jobs, sync=sync, say=_say)


def restore(  # noqa: PLR0913 - the command's options
    name: NameArgument,
    *,
    where: FromOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="If the warehouse is not empty, rename it and keep it.")
    ] = False,
    with_airflow: Annotated[bool, typer.Option("--airflow", help="Restore Airflow's metadata too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    jobs: JobsOption = None,
) -> None:
    """Restore a backup, or the `latest`: the warehouse together with Meltano's state."""
    from tidemark.backup import restore as restore_  # noqa: PLC0415
    from tidemark.backup import settings  # noqa: PLC0415

    def confirmed(plan: list[str]) -> bool:
        for line in plan:
            _say(line)
        return yes or _asked()

    project = Project.find()
    options = restore_.RestoreOptions(replace, with_airflow, jobs or settings.read(project).jobs)
    if not restore_.restore(project, _store(project, where), name, options, say=_say, confirmed=confirmed):
        _say("Nothing was changed.")
        return
    _say("Next:")
    _say("  .venv/bin/tidemark state check     # does the state fit?")
    _say("  .venv/bin/tidemark run tap-postgres target-postgres dbt-postgres:run dbt-postgres:test")
    _say("  .venv/bin/tidemark reconcile       # which rows were deleted in the source since the backup?")


def _store(project: Project, named: str | None) -> BackupStore:
    from tidemark.backup import settings  # noqa: PLC0415
    from tidemark.backup.store import BackupStore  # noqa: PLC0415

    return BackupStore(settings.destination(project, named))


def _asked() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("There is no terminal to ask on; add --yes to replace it without a question.")
    return typer.confirm("Replace?")


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
