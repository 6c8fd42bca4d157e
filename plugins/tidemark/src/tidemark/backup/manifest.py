"""What a backup says of itself: its files with their checksums, and what each database's tables held. Pure: no I/O.

It is written last and carries a checksum of its own, so that whatever lacks it, or differs from it, is no backup.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from tidemark.errors import TidemarkError

FILE = "manifest.json"
STATE = "state.json"
WAREHOUSE, AIRFLOW = "warehouse", "airflow"
# what a backup's name ends with until it is complete
PARTIAL = ".partial"
_FORMAT = 1
# sorted as text, they are sorted by time; the end tells apart those of one second
_NAME = re.compile(r"^tidemark-(\d{8}T\d{6}Z)-[0-9a-f]{6}$")
_TIME = "%Y%m%dT%H%M%SZ"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """A file of the backup."""

    size: int
    sha256: str


class Counted(_Strict):
    """What a table held: its rows, and the sum of their hashes."""

    rows: int
    checksum: str


class Database(_Strict):
    """One dumped database.

    Attributes:
        server: the major version of the server that was dumped.
        client: that of the pg_dump, which a pg_restore must not be older than.
        compression: of the dump's files.
        cluster: the server's identity, by which transactions are numbered.
        encoding, provider, collate, ctype, locale: as CREATE DATABASE takes them.
        owner: of the database.
        grants: on the database itself, which pg_dump leaves out: role, privilege, and whether it may be granted on.
        settings: of the database: the role they are for, or none, and `name=value`.
        roles: that own something in it or were granted something.
        tables: by `schema.table`, quoted where SQL would have it.
        populated: materialized views that hold rows.
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
        """How many rows it has."""
        return sum(table.rows for table in self.tables.values())


class Manifest(_Strict):
    """The whole.

    Attributes:
        pipeline: whose it is: retention touches no other's.
        state_taken_at: before the data, so that the pair can only repeat and never skip.
        seconds: it took.
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
        """When it was begun."""
        found = began(self.name)
        assert found
        return found

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(file.size for file in self.files.values())

    def signed(self) -> str:
        """Return the file's text."""
        content = self.model_dump(mode="json")
        return json.dumps({"sha256": _digest(content), "manifest": content}, indent=1) + "\n"

    @classmethod
    def parse(cls, text: str | bytes, name: str) -> Manifest:
        """Read the manifest of the backup `name`.

        Raises:
            TidemarkError: it was changed since it was written, or is of a newer release.
        """
        try:
            outer = json.loads(text)
            content = outer["manifest"]
            sound = outer["sha256"] == _digest(content) and content["name"] == name
            newer = sound and content["format"] != _FORMAT
        except (ValueError, KeyError, TypeError, AttributeError):
            sound = newer = False
        if not sound:
            raise TidemarkError(
                f"{FILE} of backup {name} was changed since it was written, so nothing in it can be trusted; take "
                "another one: `tidemark backup list`."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            what = f"of format {content['format']}" if newer else "not as this release writes it"
            raise TidemarkError(
                f"{FILE} of backup {name} is {what}, and this release knows format {_FORMAT}: restore it with the "
                "release that made it."
            ) from error


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def new_name(now: datetime, tag: str) -> str:
    """Return the name of a backup that begins now."""
    return f"tidemark-{now.astimezone(UTC).strftime(_TIME)}-{tag}"


def began(name: str) -> datetime | None:
    """Return when the backup of this name was begun; None if the name is none of ours."""
    found = _NAME.match(name)
    try:
        return datetime.strptime(found[1], _TIME).replace(tzinfo=UTC) if found else None
    except ValueError:
        return None
