"""The manifest of a backup: its files with checksums, and the contents of each database. Pure: no I/O.

It is written last and contains its own checksum. A directory without a valid manifest is not a backup.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from tidemark.errors import BackupError

FILE = "manifest.json"
STATE = "state.json"
# beside the backups: how the last drill ended
DRILL = "last-drill.json"
WAREHOUSE, AIRFLOW = "warehouse", "airflow"
# the suffix of an incomplete backup's name
PARTIAL = ".partial"
_FORMAT = 1
# names sort by time; the suffix distinguishes backups of the same second
_NAME = re.compile(r"^tidemark-(\d{8}T\d{6}Z)-[0-9a-f]{6}$")
_TIME = "%Y%m%dT%H%M%SZ"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """A file of the backup."""

    size: int
    sha256: str


class Counted(_Strict):
    """A table's contents: the number of rows, and the sum of their hashes."""

    rows: int
    checksum: str


class Database(_Strict):
    """One dumped database.

    Attributes:
        server: the major version of the dumped server.
        client: the major version of pg_dump; pg_restore must not be older.
        compression: the compression of the dump's files.
        cluster: the server's system identifier; transaction ids are only valid within one cluster.
        encoding, provider, collate, ctype, locale: options for CREATE DATABASE.
        owner: the database's owner.
        grants: grants on the database itself, which pg_dump leaves out: role, privilege, with or without grant option.
        settings: settings of the database: the role that each one is for, or None, and `name=value`.
        roles: roles that own something in the database or have grants on something in it.
        tables: the tables' contents, by `schema.table`, quoted if SQL needs it.
        populated: the populated materialized views.
    """

    server: int
    client: int
    compression: str
    cluster: str
    encoding: str
    provider: str
    collate: str
    ctype: str
    locale: str | None
    owner: str
    grants: tuple[tuple[str, str, bool], ...]
    settings: tuple[tuple[str | None, str], ...]
    roles: tuple[str, ...]
    tables: dict[str, Counted]
    populated: tuple[str, ...]

    @property
    def rows(self) -> int:
        """The number of rows in all tables."""
        return sum(table.rows for table in self.tables.values())


class Manifest(_Strict):
    """The manifest.

    Attributes:
        pipeline: the pipeline that the backup belongs to. Retention removes no other pipeline's backups.
        state_taken_at: earlier than the data, so that a restored pair can only repeat rows, and never skip any.
        seconds: how long the backup took.
    """

    format: int = _FORMAT
    name: str
    pipeline: str
    environment: str
    state_taken_at: datetime
    seconds: float
    warehouse: Database
    airflow: Database | None
    files: dict[str, File]

    @property
    def made_at(self) -> datetime:
        """When the backup began."""
        found = began(self.name)
        assert found
        return found

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(file.size for file in self.files.values())

    def signed(self) -> str:
        """Return the text of the manifest's file."""
        content = self.model_dump(mode="json")
        return json.dumps({"sha256": _digest(content), "manifest": content}, indent=1) + "\n"

    @classmethod
    def parse(cls, text: str | bytes, name: str) -> Manifest:
        """Parse the manifest of the backup `name`.

        Raises:
            TidemarkError: the manifest was changed, or a newer release wrote it.
        """
        try:
            outer = json.loads(text)
            content = outer["manifest"]
            sound = outer["sha256"] == _digest(content) and content["name"] == name
            newer = sound and content["format"] != _FORMAT
        except (ValueError, KeyError, TypeError, AttributeError):
            sound = newer = False
        if not sound:
            raise BackupError(
                f"{FILE} of backup {name} was changed since it was written, so nothing in it can be trusted; choose "
                "another one: `tidemark backup list`."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            what = f"has format {content['format']}" if newer else "has other members than this release writes"
            raise BackupError(
                f"{FILE} of backup {name} {what}, and this release reads format {_FORMAT}: restore it with the "
                "release that made it."
            ) from error


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def new_name(now: datetime, tag: str) -> str:
    """Return the name for a backup that begins now."""
    return f"tidemark-{now.astimezone(UTC).strftime(_TIME)}-{tag}"


def began(name: str) -> datetime | None:
    """Return when the backup of this name began; None if the name isn't ours."""
    found = _NAME.match(name)
    try:
        return datetime.strptime(found[1], _TIME).replace(tzinfo=UTC) if found else None
    except ValueError:
        return None
