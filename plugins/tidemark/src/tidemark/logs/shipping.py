"""Puts a project's shipper together: its files, its Elasticsearch, its secrets."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from tidemark.errors import Interruption, UsageError
from tidemark.logs.elasticsearch import Elasticsearch
from tidemark.logs.files import LogFiles
from tidemark.logs.metrics import ShipperCollector
from tidemark.logs.redaction import Redactor
from tidemark.logs.settings import elasticsearch_settings
from tidemark.logs.ship import Shipper
from tidemark.project import metrics_server, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tidemark.project.directory import Project


def ship(  # noqa: PLR0913 - each argument has a name
    project: Project,
    directories: Sequence[Path] | None,
    *,
    once: bool,
    refused: Path | None,
    say: Callable[[str], None],
    serve_on: tuple[str, int] | None = None,
) -> None:
    """Ship the lines of all log files below these directories until a signal ends this.

    Args:
        serve_on: the address and port of the shipper's metrics; None serves none.

    Raises:
        UsageError: a directory does not exist, or a setting is missing or wrong.
        LogsUndeliveredError: with `once`, Elasticsearch does not take all lines.
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
    end = _serve(shipper, *serve_on) if serve_on else None
    say(f"Sending log lines to {elasticsearch.url}.")
    # a service that is told to stop has not failed
    with suppress(Interruption):
        shipper.run(once=once)
    if end:
        end()
    say(f"{shipper.totals.stored:,} lines stored, {shipper.totals.refused:,} refused.")


def _serve(shipper: Shipper, host: str, port: int) -> Callable[[], None]:
    registry = CollectorRegistry()
    registry.register(ShipperCollector(shipper.totals))
    return metrics_server.serve(registry, host, port)


def _own(project: Project) -> list[Path]:
    """Return the directories of this machine's logs. Those that appear later are found then."""
    servers = [project.state_dir / "postgres" / side / "log" for side in ("source", "warehouse", "airflow")]
    return [project.log_dir, project.state_dir / "airflow" / "logs", *servers]
