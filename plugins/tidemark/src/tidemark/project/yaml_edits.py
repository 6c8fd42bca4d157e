"""Small edits of the project's YAML that leave all other lines and comments as they are.

An edit is made in the text where the entry has its usual form, and must then parse to the intended content. For any
other form, ruamel.yaml writes the whole file, with its comments.
"""

from __future__ import annotations

import io
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import yaml

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ruamel.yaml import YAML


def add_load(path: Path, job: str, load: str) -> bool:
    """Add a load, such as `tap-crm target-crm`, after the last load of a job. Return whether the job lacked it.

    Raises:
        UsageError: the file can't be read or written.
    """

    def change(content: Any) -> bool:
        tasks = _job(content, job)["tasks"]
        if any(load in _words(task) for task in tasks):
            return False
        tasks.insert(_after_loads(tasks), load)
        return True

    def change_lines(lines: list[str], content: Any) -> bool:
        tasks: Any = _job(content, job)["tasks"]
        place = _after_loads(tasks) - 1
        if place < 0 or not isinstance(tasks[place], str):
            return False
        line, column = tasks.lc.item(place)
        lines.insert(line + 1, f"{lines[line][:column]}{load}")
        return True

    return _edit(path, change, change_lines)


def remove_load(path: Path, load: str) -> list[str]:
    """Remove a load from all jobs of a file. Return the names of the jobs that had it.

    Raises:
        UsageError: the file can't be read or written.
    """
    had: list[str] = []

    def change(content: Any) -> bool:
        for job in content.get("jobs") or ():
            tasks = job.get("tasks") or []
            for place in reversed(range(len(tasks))):
                if load in (words := _words(tasks[place])):
                    had.append(str(job["name"]))
                    if words == load:
                        del tasks[place]
                    else:
                        tasks[place] = words.replace(load, "").strip()
        return bool(had)

    def change_lines(lines: list[str], content: Any) -> bool:
        for job in reversed(content.get("jobs") or ()):
            tasks: Any = job.get("tasks") or []
            for place in reversed(range(len(tasks))):
                if tasks[place] == load:
                    del lines[tasks.lc.item(place)[0]]
        return True

    _edit(path, change, change_lines)
    return list(dict.fromkeys(had))


def annotate_tap(path: Path, tap: str, name: str, value: str) -> None:
    """Set an annotation of ours on a tap. Meltano keeps annotations and does nothing with them.

    Raises:
        UsageError: the file can't be read or written.
    """

    def change(content: Any) -> bool:
        entry = _tap(content, tap)
        annotations = entry.setdefault("annotations", {})
        annotations.setdefault("tidemark", {})[name] = value
        return True

    def change_lines(lines: list[str], content: Any) -> bool:
        entry = _tap(content, tap)
        if entry.get("annotations"):
            return False
        line, column = entry.lc.key("name")
        lines.insert(line + 1, f"{' ' * column}annotations: {{tidemark: {{{name}: '{value}'}}}}")
        return True

    _edit(path, change, change_lines)


def deselect(path: Path, tap: str, stream: str, day: str) -> None:
    """Take a stream out of a tap's `select` and `metadata`, and mark it as retired on that day.

    Raises:
        UsageError: the tap does not select the stream, or the file can't be read or written.
    """

    def change(content: Any) -> bool:
        entry = _tap(content, tap)
        select = entry.get("select") or []
        if not any(fnmatchcase(stream, pattern.rpartition(".")[0]) for pattern in select):
            raise UsageError(f"{tap} does not select {stream} in {path}; it has {', '.join(select) or 'no stream'}.")
        named = [place for place, pattern in enumerate(select) if pattern.lstrip("!").rpartition(".")[0] == stream]
        for place in reversed(named):
            del select[place]
        # patterns of several streams may still select it
        if any("*" in pattern.rpartition(".")[0] for pattern in select):
            select.append(f"!{stream}.*")
        if isinstance(entry.get("metadata"), dict):
            entry["metadata"].pop(stream, None)
        marks = entry.setdefault("annotations", {}).setdefault("tidemark", {})
        marks.setdefault("retired_streams", {})[stream] = day
        return True

    _edit(path, change, lambda _lines, _content: False)


def _edit(path: Path, change: Callable[[Any], bool], change_lines: Callable[[list[str], Any], bool]) -> bool:
    """Make an edit.

    Args:
        change: changes a parsed file; returns false if there is nothing to do.
        change_lines: does the same to the lines, with the file parsed by ruamel.yaml for the places of its entries;
            returns false if they have another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
        wanted = yaml.safe_load(text)
        if not change(wanted):
            return False
        # ruamel.yaml's places are those of the text as it was
        lines, yaml_parser = text.splitlines(), parser()
        content = yaml_parser.load(text)
        if change_lines(lines, content) and _parses_to("\n".join(lines), wanted):
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            return True
        change(content)
        written = io.StringIO()
        yaml_parser.dump(content, written)
        path.write_text(written.getvalue(), encoding="utf-8")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be changed: {one_line(error)}; correct it.") from None
    return True


def _parses_to(text: str, wanted: Any) -> bool:
    try:
        return bool(yaml.safe_load(text) == wanted)
    except yaml.YAMLError:
        return False


def parser() -> YAML:
    """Return a parser that keeps comments, and writes as the project's files are written."""
    # only edits need it
    from ruamel.yaml import YAML  # noqa: PLC0415

    found = YAML()
    found.preserve_quotes = True
    found.width = 120
    found.indent(mapping=2, sequence=4, offset=2)
    return found


def literal(text: str) -> Any:
    """Return a text that is written as a block of lines."""
    from ruamel.yaml.scalarstring import LiteralScalarString  # noqa: PLC0415

    return LiteralScalarString(text)


def _job(content: Any, name: str) -> Any:
    return next(job for job in content.get("jobs") or () if job["name"] == name)


def _tap(content: Any, name: str) -> Any:
    return next(tap for tap in content["plugins"]["extractors"] if tap["name"] == name)


def _words(task: Any) -> str:
    return " ".join(str(word) for word in ([task] if isinstance(task, str) else task))


def _after_loads(tasks: Any) -> int:
    """Return the place after the last load; the first place if there is none."""
    return max((place + 1 for place, task in enumerate(tasks) if _words(task).startswith("tap-")), default=0)
