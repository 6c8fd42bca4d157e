"""What a peer is."""

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
    """Where a session takes place.

    Attributes:
        checkout: a copy of the project, whose servers are the source and the warehouse.
        work: for what is kept between sessions: environments, projects.
        log: takes what the peers print.
    """

    checkout: Checkout
    dataset: Dataset
    work: Path
    log: Path

    def url(self, side: str) -> str:
        """Return a URL of the source or warehouse."""
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
    """In words, with versions."""
    schema: str
    """Where its tables are, in the warehouse."""
    database: str | None = None
    """The database that they are in, if not the warehouse's own."""
    incremental = True
    once = False
    """Its first load takes minutes, and is timed in the first round alone."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def prepare(self) -> None:  # noqa: B027 - not each needs anything
        """Install what it needs."""

    def forget(self) -> None:  # noqa: B027 - not each remembers anything
        """Make ready for a first load; the schema is gone already."""

    @abc.abstractmethod
    def load(self) -> Measured:
        """Load what is new."""

    def environment(self) -> dict[str, str]:
        """Return a process environment in which nothing but what is stated here counts."""
        ours = ("PG", "TAP_", "TARGET_", "MELTANO_", "DBT_", "TIDEMARK_")
        return {k: v for k, v in os.environ.items() if not k.startswith(ours) and k != "PYTHONDONTWRITEBYTECODE"}
