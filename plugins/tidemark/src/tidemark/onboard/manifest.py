"""What onboarding wrote last for a source: a committed file beside its tap, `extract/SOURCE.onboarded.json`.

It has the hash of each file, by which the next run knows what a person edited. It has the tables as they were, by which
the next run knows what is new, renamed, retyped or gone, and keeps all names. It is committed, because a colleague's
clone and CI must know the same. It lies beside the tap's file, where neither Meltano nor dbt reads it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tidemark.errors import UsageError
from tidemark.onboard.names import TableNames

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tidemark.onboard.staged_columns import StagedTable

_VERSION = 1


def sha256(text: str) -> str:
    """Return a text's hash."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class KnownTable:
    """A table as it was when its files were written.

    Attributes:
        oid: in the source, when the table was first seen; a renamed table keeps it.
        columns: each column's type and alias, by its name, in the source's order.
        pair: the tap and target that load it, without `tap-` and `target-`; empty for the source's own.
        gone: it is no longer read, and its files are still there.
        masks: the confirmed masks by column, each as `mask` and `why`.
        reason: why it is read in this way.
    """

    oid: int
    raw_schema: str
    raw_name: str
    source_name: str
    model: str
    method: str
    replication_key: str | None
    columns: Mapping[str, Mapping[str, str]]
    pair: str = ""
    gone: bool = False
    masks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def of(cls, table: StagedTable, before: KnownTable | None) -> KnownTable:
        """Describe a table."""
        own = table.proposal
        return cls(
            # each database has other oids, so that of the first one stays
            before.oid if before else own.table.oid,
            table.raw_schema,
            own.raw_name,
            table.source_name,
            own.model,
            own.method.value,
            own.replication_key,
            {name: {"type": each.source.type, "alias": each.alias} for name, each in table.columns.items()},
            own.pair,
            masks={each.column: {"mask": each.mask, "why": each.why} for each in own.masks if own.masks_confirmed},
            reason=own.reason,
        )


@dataclass(frozen=True)
class KnownFile:
    """A file: the hash of its text, and the stream that it belongs to; None if it belongs to the whole source."""

    sha256: str
    stream: str | None = None


@dataclass(frozen=True)
class Manifest:
    """What was written.

    Attributes:
        star: the streams of the drafted fact and dimension.
        left_out: streams that could be read, and a person left out.
        not_read: streams that can't be read or are not worth it, for `tidemark check`.
        schemas: the only schemas that are read; empty for all.
        marts_enabled: the drafted marts are built.
        timezone: the time zone that a person gave for replication keys without one.
        declined: the replication key that a person said no to, by stream.
        writing: hashes of the files of a run that was killed while it wrote; each file has its old text or this one.
    """

    tables: Mapping[str, KnownTable] = field(default_factory=dict)
    files: Mapping[str, KnownFile] = field(default_factory=dict)
    star: tuple[str, str] | None = None
    left_out: tuple[str, ...] = ()
    not_read: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    marts_enabled: bool = False
    timezone: str | None = None
    declined: Mapping[str, str] = field(default_factory=dict)
    writing: Mapping[str, KnownFile] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the file; without one, nothing was written yet.

        Raises:
            UsageError: the file can't be read, or a newer release wrote it.
        """
        if not path.exists():
            return cls()
        try:
            found = json.loads(path.read_text())
            if found["version"] > _VERSION:
                raise UsageError(f"{path} has version {found['version']}, which a newer release wrote; use that.")
            return cls(
                {stream: KnownTable(**each) for stream, each in found["tables"].items()},
                {name: KnownFile(**each) for name, each in found["files"].items()},
                tuple(found["star"]) if found.get("star") else None,
                tuple(found.get("left_out", ())),
                tuple(found.get("not_read", ())),
                tuple(found.get("schemas", ())),
                found.get("marts_enabled", False),
                found.get("timezone"),
                dict(found.get("declined", {})),
                {name: KnownFile(**each) for name, each in found.get("writing", {}).items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} can't be read ({error}); restore it from git.") from None

    def text(self) -> str:
        """Return the file's text."""
        content: dict[str, Any] = {
            "version": _VERSION,
            "star": self.star,
            **({"left_out": sorted(self.left_out)} if self.left_out else {}),
            **({"not_read": sorted(self.not_read)} if self.not_read else {}),
            **({"schemas": sorted(self.schemas)} if self.schemas else {}),
            **({"marts_enabled": True} if self.marts_enabled else {}),
            **({"timezone": self.timezone} if self.timezone else {}),
            **({"declined": dict(sorted(self.declined.items()))} if self.declined else {}),
            "tables": {stream: asdict(each) for stream, each in sorted(self.tables.items())},
            "files": {name: asdict(each) for name, each in sorted(self.files.items())},
        }
        if self.writing:
            content["writing"] = {name: asdict(each) for name, each in sorted(self.writing.items())}
        return "{\n" + ",\n".join(f"  {_json(key)}: {_lines(value)}" for key, value in content.items()) + "\n}\n"

    def names(self) -> dict[str, TableNames]:
        """Return the names that tables have in the warehouse, by stream, for the next proposal to keep."""
        return {stream: TableNames(each.model, each.raw_schema, each.pair) for stream, each in self.tables.items()}

    def stream_of(self, name: str) -> str | None:
        """Return the stream that a file belongs to."""
        known = self.files.get(name) or self.writing.get(name)
        return known.stream if known else None

    def wrote(self, name: str, text: str) -> bool:
        """Return whether a file's text is one that onboarding wrote."""
        known = {each.sha256 for each in (self.files.get(name), self.writing.get(name)) if each}
        return sha256(text) in known


def _lines(value: Any, indent: int = 2) -> str:
    """Return a value as JSON, with a line for each table, column and file, so that a diff shows them one by one."""
    if not isinstance(value, dict) or not any(isinstance(each, dict) for each in value.values()):
        return _json(value)
    pad = " " * (indent + 2)
    inside = ",\n".join(f"{pad}{_json(key)}: {_lines(each, indent + 2)}" for key, each in value.items())
    return f"{{\n{inside}\n{' ' * indent}}}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
