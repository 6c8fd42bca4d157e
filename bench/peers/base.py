"""The interface of a peer."""

from __future__ import annotations

import abc
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import conninfo

from bench import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.integration.checkout import Checkout

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

    def servers(self) -> dict[str, int]:
        """Return the main process of each server."""
        found = {}
        for side in ("source", "warehouse"):
            with self.checkout.connect(side) as connection:
                row = connection.execute("select pg_read_file('postmaster.pid', 0, 20)").fetchone()
                assert row
                found[side] = int(row[0].splitlines()[0])
        return found

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

    def load_changed(self, turn: int) -> Measured | None:  # noqa: ARG002 - for peers that are told which rows changed
        """Load the rows that `data.change` changes in that turn; None if the peer can't."""
        return self.load() if self.incremental else None

    def more(self) -> Mapping[str, Callable[[], Measured]]:
        """Return what else it does with the rows, by kind."""
        return {}

    def run(
        self,
        *pipes: Sequence[Sequence[str]],
        cwd: Path | None = None,
        disk: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Measured:
        """Run pipes of commands as one measurement; see `measure.run`."""
        return measure.run(
            *pipes,
            env={**self.environment(), **(variables or {})},
            cwd=cwd or self.setting.work,
            log=self.setting.log,
            disk=disk,
            servers=self.setting.servers(),
        )

    def environment(self) -> dict[str, str]:
        """Return a process environment without variables that would change a peer's settings."""
        ours = ("PG", "TAP_", "TARGET_", "MELTANO_", "DBT_", "TIDEMARK_")
        return {k: v for k, v in os.environ.items() if not k.startswith(ours) and k != "PYTHONDONTWRITEBYTECODE"}
