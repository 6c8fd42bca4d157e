"""Puts a project's shipper together: its files, its Elasticsearch, its secrets."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tidemark.errors import Interruption, UsageError
from tidemark.logs.elasticsearch import Elasticsearch
from tidemark.logs.files import LogFiles
from tidemark.logs.redaction import Redactor
from tidemark.logs.settings import elasticsearch_settings
from tidemark.logs.ship import Shipper
from tidemark.project import variables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tidemark.project.directory import Project


def ship(
    project: Project,
    directories: Sequence[Path] | None,
    *,
    once: bool,
    refused: Path | None,
    say: Callable[[str], None],
) -> None:
    """Ship the lines of all log files below these directories until a signal ends this.

    Raises:
        UsageError: a directory does not exist, or a setting is missing or wrong.
        UndeliveredError: with `once`, Elasticsearch does not take all lines.
        TidemarkError: Elasticsearch refuses the index template.
    """
    if missing := [str(path) for path in directories or () if not path.is_dir()]:
        raise UsageError(f"There is no directory {missing[0]}; name the directories that have log files.")
    settings = elasticsearch_settings(project)
    refused = refused or project.state_dir / "logs-refused.jsonl"
    elasticsearch = Elasticsearch(settings, project.root / "monitoring" / "logs" / "elasticsearch")
    shipper = Shipper(
        LogFiles(directories or _own(project), but=refused),
        elasticsearch,
        redact=Redactor(variables.read(project)),
        refused=refused,
        keep_days=settings.keep_days,
        say=say,
    )
    say(f"Sending log lines to {elasticsearch.url}.")
    # a service that is told to stop has not failed
    with suppress(Interruption):
        shipper.run(once=once)
    say(f"{shipper.totals.stored:,} lines stored, {shipper.totals.refused:,} refused.")


def _own(project: Project) -> list[Path]:
    """Return the directories of this machine's logs. Those that appear later are found then."""
    servers = [project.state_dir / "postgres" / side / "log" for side in ("source", "warehouse", "airflow")]
    return [project.log_dir, project.state_dir / "airflow" / "logs", *servers]
