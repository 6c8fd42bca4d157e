"""The paths of a Tidemark project."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tidemark.errors import UsageError
from tidemark.project import dotenv_file


@dataclass(frozen=True)
class Project:
    """A directory with a meltano.yml."""

    root: Path

    @classmethod
    def find(cls) -> Project:
        """Return the project in MELTANO_PROJECT_ROOT, or else the nearest one at or above the working directory.

        Raises:
            UsageError: there is no project.
        """
        if named := os.environ.get("MELTANO_PROJECT_ROOT"):
            if not Path(named, "meltano.yml").is_file():
                raise UsageError(f"MELTANO_PROJECT_ROOT is {named}, which holds no meltano.yml; correct or unset it.")
            return cls(Path(named).resolve())
        here = Path.cwd()
        for directory in (here, *here.parents):
            if (directory / "meltano.yml").is_file():
                return cls(directory)
        raise UsageError(f"There is no meltano.yml in {here} or above it; run this inside a Tidemark project.")

    def variable(self, *names: str) -> str | None:
        """Return the first of these variables that is set, in the process or else in .env."""
        dotenv = dotenv_file.read(self.dotenv)
        return next((value for name in names if (value := os.environ.get(name) or dotenv.get(name))), None)

    @property
    def dotenv(self) -> Path:
        """The settings and secrets of this machine. The file is never committed."""
        return self.root / ".env"

    @property
    def work(self) -> Path:
        """Where runs write: TIDEMARK_WORK_DIR (for read-only or shared projects), or else the project."""
        return Path(self.root, self.variable("TIDEMARK_WORK_DIR") or "").resolve()

    @property
    def state_dir(self) -> Path:
        """The files of this machine's servers and locks. They are never committed."""
        return self.work / ".tidemark"

    @property
    def plugins(self) -> Path:
        """Meltano's directory, with all installed plugins. Meltano also writes there, unless `work` is elsewhere."""
        return self.root / ".meltano"

    @property
    def pipeline_lock(self) -> Path:
        """The lock that a run holds, and anything that must not happen during a run."""
        return self.state_dir / "pipeline.lock"

    @property
    def meltano(self) -> Path:
        """The meltano executable of the project's own environment."""
        return self.root / ".venv" / "bin" / "meltano"

    @property
    def demo(self) -> Path:
        """The demo shop's SQL."""
        return self.root / "demo" / "shop" / "sql"

    @property
    def dbt_target(self) -> Path:
        """The directory of dbt's manifest and documentation; with TIDEMARK_WORK_DIR, it is below that."""
        named = self.variable("DBT_POSTGRES_TARGET_PATH", "DBT_TARGET_PATH")
        return Path(self.root, named or self.work / ".meltano" / "dbt" / "target")

    @property
    def log_dir(self) -> Path:
        """Where runs write their logs: TIDEMARK_LOG_DIR, or else logs/ where they write everything else."""
        return Path(self.root, self.variable("TIDEMARK_LOG_DIR") or self.work / "logs").resolve()

    @property
    def run_log(self) -> Path:
        """The log of all runs, in JSON lines (logging.yaml)."""
        return self.log_dir / "meltano.jsonl"
