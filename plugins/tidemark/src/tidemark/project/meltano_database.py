"""Meltano's own database: the file that it is by default, and how that file is made.

Meltano makes the file in some thirty steps that SQLite commits one by one. If that is interrupted, no later run of
Meltano can go on from there. So the file is made beside its place, and put there once it is whole.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from singer_postgres.core.errors import one_line
from tidemark.errors import TidemarkError

if TYPE_CHECKING:
    from tidemark.project.directory import Project


def file_of(project: Project, uri: str) -> Path | None:
    """Return the file of a database in SQLite; None if it is another one, or only Meltano can read the address.

    Args:
        uri: its address, empty for the default file.
    """
    kind, _, rest = uri.partition("://")
    if kind not in {"", "sqlite"} or "$" in rest or ":memory:" in rest:
        return None
    if rest:
        # Meltano runs in the project's directory
        return project.root / rest.removeprefix("/").partition("?")[0]
    return Path(os.environ.get("MELTANO_SYS_DIR_ROOT") or project.work / ".meltano") / "meltano.db"


def make(path: Path) -> None:
    """Make the file, unless it exists.

    Raises:
        TidemarkError: it can't be made.
    """
    if path.name == ":memory:" or path.exists():
        return
    # imported late, because the import takes most of a second, and the file is there after the first run
    import sqlalchemy.exc  # noqa: PLC0415
    from meltano.core.migration_service import MigrationError, MigrationService  # noqa: PLC0415

    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = sqlalchemy.create_engine(f"sqlite:///{beside.absolute()}")
        MigrationService(engine).upgrade(silent=True)
        engine.dispose()
        try:
            # unlike a rename, it never replaces a file that another run has made meanwhile
            os.link(beside, path)
        except FileExistsError:
            pass
        except OSError:
            # a disk without links
            beside.rename(path)
    except (sqlalchemy.exc.SQLAlchemyError, MigrationError, OSError) as error:
        raise TidemarkError(
            f"Meltano's own database {path} can't be made: {one_line(error)}; check MELTANO_DATABASE_URI."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
