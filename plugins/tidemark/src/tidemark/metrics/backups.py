"""The newest backup and the last drill, from the place where backups are kept.

The place may be far away, so a thread of its own looks there once a minute, and a scrape takes what it found last.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemark.backup import settings
from tidemark.backup.manifest import DRILL
from tidemark.backup.store import BackupStore
from tidemark.errors import TidemarkError
from tidemark.metrics import catalogue
from tidemark.project import variables

if TYPE_CHECKING:
    from tidemark.backup.manifest import Manifest
    from tidemark.metrics.samples import Samples
    from tidemark.project.directory import Project

_LOOK_EVERY_S = 60.0


@dataclass(frozen=True)
class _Found:
    count: int
    newest: Manifest | None
    drill: dict[str, Any] | None


class Backups:
    """The place of backups, and what was found there last."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._found: _Found | TidemarkError | None = None
        self._looked_at = -_LOOK_EVERY_S
        self._looking: threading.Thread | None = None

    def tell(self, samples: Samples, *, patience_s: float) -> None:
        """Add what was found last. The first call waits up to `patience_s` seconds.

        Raises:
            TidemarkError: the place can't be read, or has not answered yet.
        """
        if time.monotonic() - self._looked_at >= _LOOK_EVERY_S and not (self._looking and self._looking.is_alive()):
            self._looked_at = time.monotonic()
            self._looking = threading.Thread(target=self._look, name="backups", daemon=True)
            self._looking.start()
        if self._looking:
            self._looking.join(patience_s)
        match self._found:
            case None:
                raise TidemarkError("The place of backups has not answered yet.")
            case TidemarkError() as error:
                raise error
            case _Found(count, newest, drill):
                samples.add(catalogue.BACKUPS, count)
                if newest:
                    samples.add(catalogue.BACKUP_TIME, newest.made_at.timestamp())
                    samples.add(catalogue.BACKUP_SECONDS, newest.seconds)
                    samples.add(catalogue.BACKUP_BYTES, newest.size)
                if drill:
                    samples.add(catalogue.DRILL_TIME, drill["at"])
                    samples.add(catalogue.DRILL_SUCCESS, drill["succeeded"])
                    samples.add(catalogue.DRILL_SECONDS, drill["seconds"])

    def _look(self) -> None:
        try:
            self._found = _look(self._project)
        except TidemarkError as error:
            self._found = error


def _look(project: Project) -> _Found:
    store = BackupStore(settings.destination(project, None))
    environment = variables.environment(project)
    good, newest = 0, None
    for name in reversed(store.backups()):
        try:
            manifest = store.manifest(name)
        except TidemarkError:
            # a damaged one is no backup
            continue
        if manifest.environment == environment:
            good += 1
            if newest is None and not store.missing(manifest):
                newest = manifest
    drill = store.note(DRILL)
    # if none is complete, those with a manifest are no backups either
    return _Found(good if newest else 0, newest, drill if drill and drill.get("environment") == environment else None)
