"""The interface of a peer."""

from __future__ import annotations

import abc
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import conninfo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Checkout

    from bench.data import Dataset
    from bench.measure import Measured


@dataclass(frozen=True)
class Setting:
    """The environment of a session.

    Attributes:
        checkout: a copy of the project; its servers are the source and the warehouse.
        work: a directory that stays between sessions, for environments and projects.
        log: the file for the peers' output.
    """

    checkout: Checkout
    dataset: Dataset
    work: Path
    log: Path

    def url(self, side: str) -> str:
        """Return the URL of the source or the warehouse."""
        if side not in self.checkout.urls:
            self.checkout.urls[side] = self.checkout.tidemark("dsn", side).strip()
        return self.checkout.urls[side]

    def parts(self, side: str) -> dict[str, str]:
        """Return the parts of that URL."""
        return {name: str(value) for name, value in conninfo.conninfo_to_dict(self.url(side)).items()}


class Peer(abc.ABC):
    """A way to load."""

    name: str
    settings: str
    """A description of the settings, with versions."""
    schema: str
    """The warehouse schema of its tables."""
    database: str | None = None
    """The database of its tables, if it is not the warehouse's."""
    incremental = True
    once = False
    """Its first load takes minutes, so only the first round times it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def prepare(self) -> None:  # noqa: B027 - not every peer needs this
        """Install what the peer needs."""

    def forget(self) -> None:  # noqa: B027 - not every peer has state
        """Prepare for a first load; the schema is already dropped."""

    @abc.abstractmethod
    def load(self) -> Measured:
        """Load what is new."""

    def environment(self) -> dict[str, str]:
        """Return a process environment without variables that would change a peer's settings."""
        ours = ("PG", "TAP_", "TARGET_", "MELTANO_", "DBT_", "TIDEMARK_")
        return {k: v for k, v in os.environ.items() if not k.startswith(ours) and k != "PYTHONDONTWRITEBYTECODE"}
