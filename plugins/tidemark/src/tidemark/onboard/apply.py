"""Writes all that a source needs in the project: its files, its place in jobs, the key of its masks."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tidemark.onboard import earlier, sql_files, write
from tidemark.project import dotenv_file, new_source, resolved_settings, schedules, sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tidemark.onboard.plan import Plan
    from tidemark.onboard.proposal import Proposal
    from tidemark.onboard.write import Written
    from tidemark.project.directory import Project


@dataclass(frozen=True)
class Applied:
    """What was written, or would be.

    Attributes:
        others: changes of files that are the whole project's, in words.
        sql: files with statements for a person to run in the source, with what they are.
    """

    written: Written
    others: tuple[str, ...] = ()
    sql: tuple[tuple[str, str], ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything changes."""
        return self.written.changes or bool(self.others)


def apply(project: Project, plan: Plan, *, dry_run: bool = False, remove_gone: bool = False) -> Applied:
    """Write the files of a plan.

    Args:
        dry_run: only say what would be written.
        remove_gone: see `write`.

    Raises:
        UsageError, BusyError, TidemarkError: see `write`; or a file of the project can't be changed.
    """
    proposal = earlier.with_left_out(plan.proposal, plan.before)
    options = replace(plan.options, unmatched=plan.unmatched)
    written = write.write(project, proposal, options=options, dry_run=dry_run, remove_gone=remove_gone)
    # .env is not committed, so CI has none
    others = [] if dry_run else [*_mask_secret(project, proposal)]
    for name in (proposal.source, *sorted(proposal.pairs)):
        load = f"tap-{name} target-{name}"
        if dry_run:
            others += [f"job {job}: `{load}`" for job in new_source.jobs_without(project, load)]
        else:
            others += new_source.add_to_jobs(project, load)
    if not dry_run and schedules.refresh(project):
        others.append(schedules.FILE)
    sql = () if dry_run else tuple(_sql(project, proposal))
    return Applied(written, tuple(others), sql)


def _mask_secret(project: Project, proposal: Proposal) -> Iterator[str]:
    """Make the key of sha256 masks if there is none. With another key, old and new values would not match."""
    tap = f"tap-{proposal.source}"
    hashed = any(mask.mask == "sha256" for each in proposal.read if each.masks_confirmed for mask in each.masks)
    if hashed and not resolved_settings.read(project, tap, ["mask_secret"]):
        variable = f"{sources.prefix(tap)}_MASK_SECRET"
        dotenv_file.write(project.dotenv, {variable: secrets.token_urlsafe(32)}, instead="set it in the environment")
        yield f".env: {variable}, the key of the masks; keep it"


def _sql(project: Project, proposal: Proposal) -> list[tuple[str, str]]:
    """Write the statements for a person to run in the source. They depend on its sizes and roles."""
    directory = project.state_dir / "onboard"
    found = []
    for kind, what, text in (
        ("grants", "rights that the role lacks", sql_files.missing_grants(proposal)),
        ("indexes", "indexes that replication keys lack", sql_files.missing_indexes(proposal)),
    ):
        path = directory / f"{proposal.source}-{kind}.sql"
        if not text:
            path.unlink(missing_ok=True)
            continue
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        found.append((_relative(project, path), what))
    return found


def _relative(project: Project, path: Path) -> str:
    return str(path.relative_to(project.root)) if path.is_relative_to(project.root) else str(path)
