"""Extends the tap's and the target's files that were there before: nothing in them is replaced.

A file that `tidemark source add` wrote and nobody changed since is written as a whole. In any other, such as the first
source's, what is missing is added, and all lines and comments of a person stay.
"""

from __future__ import annotations

import io
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import yaml

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError
from tidemark.onboard import meltano_files
from tidemark.onboard.meltano_files import MeltanoSource
from tidemark.onboard.proposal import Method
from tidemark.project import yaml_edits
from tidemark.project.new_source import NewSource

if TYPE_CHECKING:
    from tidemark.onboard.generated import Generated, Options
    from tidemark.onboard.manifest import KnownTable, Manifest
    from tidemark.onboard.proposal import Proposal
    from tidemark.project.directory import Project

_PUBLIC = {"public"}


@dataclass(frozen=True)
class _Change:
    """What changes: a tap reads what is proposed, as far as nobody said otherwise, and no longer what is unmatched."""

    proposal: Proposal
    before: Manifest
    unmatched: tuple[str, ...]


def extend(project: Project, content: Generated, proposal: Proposal, options: Options, before: Manifest) -> Generated:
    """Return the files with the texts of those that are extended.

    Raises:
        UsageError: a file can't be read.
    """
    source = options.meltano or MeltanoSource.of(proposal.source)
    untouched = NewSource(proposal.source, proposal.raw_schema).files
    files, extended, may_change = dict(content.files), set(), set()
    for path, kind in ((source.tap_path, "extractors"), (source.target_path, "loaders")):
        file = project.root / path
        if path not in files or path in before.files or path in before.writing or not file.exists():
            continue
        may_change.add(path)
        text = file.read_text(encoding="utf-8")
        if text != untouched.get(path):
            extended.add(path)
            files[path] = _extended(text, files[path], kind, path, _Change(proposal, before, options.unmatched))
    return replace(content, files=files, extended=frozenset(extended), may_change=frozenset(may_change))


def unmatched(project: Project, proposal: Proposal, source: MeltanoSource, before: Manifest) -> list[str]:
    """Return the patterns of a person's `select` that match no table of the source."""
    path = project.root / source.tap_path
    if source.tap_path in before.files or not path.exists():
        return []
    document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    taps = (document.get("plugins") or {}).get("extractors") or ()
    select = next((tap.get("select") or [] for tap in taps if tap.get("name") == source.tap), [])
    return [
        pattern
        for pattern in map(str, select)
        if not pattern.startswith("!")
        and not any(fnmatchcase(stream, pattern.rpartition(".")[0]) for stream in proposal.all_streams)
    ]


def with_masks(project: Project, proposal: Proposal, source: MeltanoSource, before: Manifest) -> Proposal:
    """Return the proposal with the masks that the tap's file has, whoever wrote them."""
    path = project.root / source.tap_path
    if not path.exists():
        return proposal
    text = path.read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = {}
    # another check refuses a file that can't be read
    with suppress(yaml.YAMLError, AttributeError, TypeError):
        for tap in ((yaml.safe_load(text) or {}).get("plugins") or {}).get("extractors") or ():
            for stream, masks in ((tap.get("config") or {}).get("masks") or {}).items():
                found.setdefault(_plain(stream), {}).update({_plain(name): mask for name, mask in masks.items()})
    is_edited = source.tap_path in before.files and not before.wrote(source.tap_path, text)
    return replace(proposal, file_masks=found, tap_is_edited=is_edited)


def _plain(name: str) -> str:
    """Return a name without the signs that keep Meltano from splitting it at its dots."""
    return name.replace("\\.", ".")


def _extended(text: str, generated: str, kind: str, path: str, change: _Change) -> str:
    parser = yaml_edits.parser()
    try:
        there, wanted = parser.load(text) or {}, yaml_edits.parser().load(generated)
        plugins = there.setdefault("plugins", {}).setdefault(kind, [])
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}; correct it.") from None
    before = yaml.safe_load(text)
    by_name = {plugin["name"]: plugin for plugin in plugins}
    for plugin in wanted["plugins"][kind]:
        if (own := by_name.get(plugin["name"])) is None:
            plugins.append(plugin)
        elif kind == "extractors":
            _extend_tap(own, plugin, change)
    written = io.StringIO()
    parser.dump(there, written)
    # ruamel.yaml may write the same content in another form
    return text if yaml.safe_load(written.getvalue()) == before else written.getvalue()


def _extend_tap(own: Any, wanted: Any, change: _Change) -> None:
    select = own.setdefault("select", [])
    metadata = _entries(own.get("metadata"))
    for place in reversed(range(len(select))):
        if select[place] in change.unmatched:
            metadata.pop(str(select[place]).rpartition(".")[0], None)
            del select[place]
    selected = [str(each).rpartition(".")[0] for each in select if not str(each).startswith("!")]
    schemas, fresh, generated = set(), set(), json.loads(wanted["metadata"] or "{}")
    for each in change.proposal.read:
        pattern, known = meltano_files.stream_pattern(each.table.stream), change.before.tables.get(each.table.stream)
        if each.pair:
            continue
        if not any(fnmatchcase(each.table.stream, name) for name in selected):
            fresh.add(pattern)
            schemas.add(each.table.schema)
        elif known is None or metadata.get(pattern) != _replication(known):
            # a person chose how it is read
            continue
        metadata.pop(pattern, None)
        metadata |= {pattern: generated[pattern]} if pattern in generated else {}
    _append(select, [each for each in wanted["select"] if str(each).lstrip("!").rpartition(".")[0] in fresh])
    if metadata != _entries(own.get("metadata")):
        _put_entries(own, metadata)
    _extend_config(own, wanted["config"], schemas)


def _append(items: Any, more: list[Any]) -> None:
    """Append to a list. A comment below its last item, which ruamel.yaml holds with the item, stays below."""
    comments = items.ca.items if more and hasattr(items, "ca") else {}
    below = comments.pop(len(items) - 1, None)
    items.extend(more)
    if below is not None:
        comments[len(items) - 1] = below


def _entries(metadata: Any) -> dict[str, Any]:
    """Return the entries of `metadata`, which is a mapping or the text of one."""
    return dict(json.loads(metadata or "{}") if isinstance(metadata, str) else metadata or {})


def _replication(known: KnownTable) -> dict[str, str] | None:
    """Return the entry that was written for a table; None if it was read whole."""
    if known.method == Method.full_table:
        return None
    key = {"replication-key": known.replication_key} if known.replication_key else {}
    return {"replication-method": known.method, **key}


def _put_entries(own: Any, entries: dict[str, Any]) -> None:
    there = own.get("metadata")
    if isinstance(there, str):
        lines = ",\n".join(f"  {_json(name)}: {_json(entry)}" for name, entry in entries.items())
        own["metadata"] = yaml_edits.literal(f"{{\n{lines}\n}}") if entries else "{}"
        return
    there = own.setdefault("metadata", {})
    for name in [name for name in there if name not in entries]:
        del there[name]
    there.update({name: entry for name, entry in entries.items() if there.get(name) != entry})


def _extend_config(own: Any, wanted: Any, schemas: set[str]) -> None:
    there = own.get("config") or {}
    config: dict[str, Any] = {}
    named = wanted["filter_schemas"]
    if "filter_schemas" in there:
        config["filter_schemas"] = [*there["filter_schemas"], *sorted(schemas - set(there["filter_schemas"]))]
    elif schemas - _PUBLIC or own.get("inherit_from"):
        config["filter_schemas"] = list(named)
    if "timestamp_timezone" in wanted and "timestamp_timezone" not in there:
        config["timestamp_timezone"] = wanted["timestamp_timezone"]
    if masks := dict(wanted.get("masks") or {}):
        old = there.get("masks") or {}
        config["masks"] = {**masks, **{stream: {**masks.get(stream, {}), **columns} for stream, columns in old.items()}}
    config = {name: value for name, value in config.items() if there.get(name) != value}
    if config:
        own.setdefault("config", {}).update(config)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("$", "\\u0024")
