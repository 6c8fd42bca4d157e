"""Takes the demo shop out of the user's files, and puts it back.

The files as a new clone has them, in demo/project/, say what is the shop's: streams, and an entry in dbt's packages.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError
from tidemark.project import schedules, user_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from ruamel.yaml import YAML

    from tidemark.project.directory import Project

PACKAGE = "../demo/shop"
_EXTRACTORS = "extract/extractors.meltano.yml"
_PACKAGES = "transform/packages.yml"
_ANCHOR = re.compile(r": &(\w+)\s*$")
Change = tuple[str, str]


@dataclass(frozen=True)
class Edit:
    """An edit of a file.

    Attributes:
        change: changes the user's content by the shop's, and returns what was changed, in words.
        lines: yields the line and the indent of each entry that goes; None if entries are added.
        undone_by: the edit that this one reverses.
    """

    change: Callable[[Any, Any], list[str]]
    lines: Callable[[Any, Any], Iterable[tuple[int, int]]] | None = None
    undone_by: Edit | None = None


def installed(project: Project) -> bool:
    """Return whether the shop's models are part of the project.

    Raises:
        UsageError: transform/packages.yml can't be read.
    """
    path = project.root / _PACKAGES
    return path.is_file() and any(_is_shop(each) for each in _entries(_load(path)))


def streams(project: Project) -> list[str]:
    """Return the shop's streams."""
    taps = _extractors(_load(user_files.as_cloned(project) / _EXTRACTORS))
    return [pattern.rpartition(".")[0] for tap in taps for pattern in tap["select"]]


def remove(project: Project) -> list[Change]:
    """Take the shop out of the user's files. Return each change: a file, and what was done to it.

    Raises:
        UsageError: a file can't be read or written.
    """
    return _change(project, {_EXTRACTORS: _REMOVE_STREAMS, _PACKAGES: _REMOVE_PACKAGE}, "removed")


def add(project: Project) -> list[Change]:
    """Put the shop back. A file that nobody edited since `remove` is again what it was.

    Raises:
        UsageError: a file can't be read or written.
    """
    edits = {
        _EXTRACTORS: Edit(_with_streams, undone_by=_REMOVE_STREAMS),
        _PACKAGES: Edit(_with_package, undone_by=_REMOVE_PACKAGE),
    }
    return _change(project, edits, "added")


def _change(project: Project, edits: dict[str, Edit], verb: str) -> list[Change]:
    written, changes = {}, []
    for name, edit in edits.items():
        path, shop = project.root / name, _read(user_files.as_cloned(project) / name)
        before = _read(path)
        after, what = _edited(path, before, shop, edit)
        if what and edit.undone_by and before == _edited(path, shop, shop, edit.undone_by)[0]:
            after = shop
        if what:
            written[path] = after
            changes.append((name, f"{verb} {', '.join(what)}"))
    for path, text in written.items():
        _write(path, text)
    if written:
        # it lists the streams
        schedules.refresh(project)
    return changes


def _edited(path: Path, text: str, shop: str, edit: Edit) -> tuple[str, list[str]]:
    """Return the text after an edit, and what was edited.

    Where entries have their usual form, their lines go and all others stay. Otherwise, ruamel.yaml writes the file.
    """
    try:
        wanted, ours = yaml.safe_load(text), yaml.safe_load(shop)
        what = edit.change(wanted, ours)
        parser = _parser()
        content = parser.load(text)
        if edit.lines:
            lines = text.split("\n")
            places = sorted(edit.lines(content, ours), reverse=True)
            _keep_anchors(lines, [line for line, _ in places])
            for line, column in places:
                _cut(lines, line, column)
            for line, column in _emptied(content, wanted):
                lines[line] = f"{' ' * column}select: []"
            if (shorter := "\n".join(lines)) != text and _parses_to(shorter, wanted):
                return shorter, what
        edit.change(content, ours)
        written = io.StringIO()
        parser.dump(content, written)
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} can't be changed: {one_line(error)}; correct it.") from None
    return written.getvalue(), what


def _keep_anchors(lines: list[str], cut: Sequence[int]) -> None:
    """Move the content of each anchor that goes to its first alias that stays."""
    for line in cut:
        if not (anchor := _ANCHOR.search(lines[line])):
            continue
        alias = re.compile(rf": \*{re.escape(anchor[1])}\s*$")
        stays = (each for each in range(line + 1, len(lines)) if each not in cut and alias.search(lines[each]))
        if (place := next(stays, None)) is not None:
            # one item, so that the places of other lines stay
            below = lines[line + 1 : _end(lines, line, len(lines[line]) - len(lines[line].lstrip()))]
            lines[place] = "\n".join([lines[place].replace(f"*{anchor[1]}", f"&{anchor[1]}"), *below])


def _cut(lines: list[str], line: int, column: int) -> None:
    """Delete an entry: its line, and those that are indented deeper."""
    del lines[line : _end(lines, line, column)]


def _end(lines: list[str], line: int, column: int) -> int:
    """Return the first line after an entry that is not indented deeper than the entry."""
    end = line + 1
    while end < len(lines) and lines[end].strip() and len(lines[end]) - len(lines[end].lstrip()) > column:
        end += 1
    return end


def _parses_to(text: str, wanted: Any) -> bool:
    try:
        return bool(yaml.safe_load(text) == wanted)
    except yaml.YAMLError:
        return False


def _without_streams(content: Any, shop: Any) -> list[str]:
    gone = []
    for ours in _extractors(shop):
        tap = _tap(content, ours["name"])
        select = (tap or {}).get("select") or []
        for place in reversed(range(len(select))):
            if select[place] in ours["select"]:
                gone.append(select[place].rpartition(".")[0])
                del select[place]
        metadata = (tap or {}).get("metadata") or {}
        for stream in ours["metadata"]:
            metadata.pop(stream, None)
        if tap is not None and "metadata" in tap and not metadata:
            del tap["metadata"]
        if tap is not None and "select" in tap and not select:
            # without the key, Meltano would select every table
            tap["select"] = []
    return gone[::-1]


def _lines_of_streams(content: Any, shop: Any) -> Iterator[tuple[int, int]]:
    """Yield the line and the indent of each entry that the shop has."""
    for ours in _extractors(shop):
        tap: Any = _tap(content, ours["name"]) or {}
        select: Any = tap.get("select") or []
        metadata: Any = tap.get("metadata") or {}
        for place, pattern in enumerate(select):
            if pattern in ours["select"]:
                line, column = select.lc.item(place)
                yield line, column - len("- ")
        theirs = metadata.keys() - ours["metadata"].keys()
        if metadata and not theirs:
            yield tap.lc.key("metadata")
        for stream in ours["metadata"].keys() & metadata.keys() if theirs else ():
            yield metadata.lc.key(stream)


def _emptied(content: Any, wanted: Any) -> Iterator[tuple[int, int]]:
    """Yield where `select` is of each tap that has no stream left. Its lines come before all that were cut."""
    for tap, left in zip(_extractors(content), _extractors(wanted), strict=False):
        if tap.get("select") and left.get("select") == []:
            yield tap.lc.key("select")


def _with_streams(content: Any, shop: Any) -> list[str]:
    new = []
    for ours in _extractors(shop):
        tap = _tap(content, ours["name"])
        if tap is None:
            raise ValueError(f"it has no {ours['name']}, which reads the shop")
        select = tap.setdefault("select", [])
        missing = [pattern for pattern in ours["select"] if pattern not in select]
        if not select:
            # a new list, because an empty one is in flow style
            tap["select"] = missing
        else:
            for place, pattern in enumerate(missing):
                select.insert(place, pattern)
        new += [pattern.rpartition(".")[0] for pattern in missing]
        metadata = tap.setdefault("metadata", {})
        for stream, method in ours["metadata"].items():
            metadata.setdefault(stream, dict(method))
    return new


def _without_package(content: Any, _: Any) -> list[str]:
    entries = _entries(content)
    places = [place for place, each in enumerate(entries) if _is_shop(each)]
    for place in reversed(places):
        del entries[place]
    return [f"the package {PACKAGE}"] if places else []


def _lines_of_package(content: Any, _: Any) -> Iterator[tuple[int, int]]:
    entries = _entries(content)
    for place, each in enumerate(entries):
        if _is_shop(each):
            line, column = entries.lc.item(place)
            yield line, column - len("- ")


def _with_package(content: Any, _: Any) -> list[str]:
    entries = _entries(content)
    if any(_is_shop(each) for each in entries):
        return []
    entries.append({"local": PACKAGE})
    return [f"the package {PACKAGE}"]


_REMOVE_STREAMS = Edit(_without_streams, _lines_of_streams)
_REMOVE_PACKAGE = Edit(_without_package, _lines_of_package)


def _entries(content: Any) -> Any:
    return (content or {}).get("packages") or []


def _is_shop(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("local") == PACKAGE


def _extractors(content: Any) -> Any:
    return (content.get("plugins") or {}).get("extractors") or []


def _tap(content: Any, name: str) -> Any:
    return next((tap for tap in _extractors(content) if tap["name"] == name), None)


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}; correct it.") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}; restore it with git.") from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.") from None


def _parser() -> YAML:
    # only edits need it
    from ruamel.yaml import YAML  # noqa: PLC0415

    parser = YAML()
    parser.preserve_quotes = True
    parser.width = 120
    parser.indent(mapping=2, sequence=4, offset=2)
    return parser
