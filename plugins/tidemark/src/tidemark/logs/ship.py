"""The shipper: sends every line of the log files to Elasticsearch, none lost and none doubled.

- The files are the buffer. A file's offset moves only when each line before it is stored, or is in the file of refused
  lines. After everything else (no answer, a full disk, a read-only index) it tries again, after a second at first and
  later every 30.
- A line has one id and one index, whenever it is read. So reading again is safe, and each start reads everything again.
- Memory is bounded by one batch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from tidemark.errors import LogsUndeliveredError, UsageError
from tidemark.logs.elasticsearch import AwayError, Document
from tidemark.logs.fields import INDEX, dump
from tidemark.logs.sources import reader_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tidemark.logs.elasticsearch import Elasticsearch, Result
    from tidemark.logs.files import Line, LogFile, LogFiles
    from tidemark.logs.redaction import Redactor

_DAY_S = 86_400
_LINES = 1_000
_BYTES = 4_000_000
# how often to look for new lines, and how long to wait after a failure
_LOOK_S = 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_DELETE_EVERY_S = 3_600


@dataclass
class Totals:
    """What a shipper did since its start."""

    stored: int = 0
    refused: int = 0
    failing_since: float = 0.0
    """Since when Elasticsearch takes no lines, in seconds of the epoch; 0 while it takes them."""


@dataclass
class _Batch:
    """Lines of one or several files, and up to where they reach in each."""

    documents: list[Document] = field(default_factory=list)
    owners: list[LogFile] = field(default_factory=list)
    ends: dict[int, tuple[LogFile, int, str | None]] = field(default_factory=dict)
    refused: list[tuple[LogFile, dict[str, Any]]] = field(default_factory=list)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.documents) + len(self.refused) >= _LINES or self.size >= _BYTES


class Shipper:
    """Sends the lines of log files to Elasticsearch."""

    def __init__(  # noqa: PLR0913 - each argument has a name
        self,
        files: LogFiles,
        elasticsearch: Elasticsearch,
        *,
        redact: Redactor,
        refused: Path,
        keep_days: int,
        say: Callable[[str], None],
    ) -> None:
        """Prepare to ship.

        Args:
            refused: the file of lines that Elasticsearch can never store. Each start empties it, and finds them again.
            keep_days: older lines are not sent; their indices are deleted already.
            say: is told what an operator should know.
        """
        self._files = files
        self._elasticsearch = elasticsearch
        self._redact = redact
        self._refused = refused
        self._keep_days = keep_days
        self._say = say
        self._ready = self._has_stored = False
        self._deleted_at = 0.0
        self.totals = Totals()

    def run(self, *, once: bool = False) -> None:
        """Ship until the process ends; with `once`, until all present lines are stored or refused.

        It may be killed at any moment.

        Raises:
            LogsUndeliveredError: with `once`, Elasticsearch does not take all lines.
            UsageError: the file of refused lines can't be written.
            TidemarkError: Elasticsearch refuses the index template.
        """
        try:
            self._refused.parent.mkdir(parents=True, exist_ok=True)
            self._refused.write_text("", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{self._refused} can't be written: {error.strerror}; name another --refused.") from None
        wait = 0.0
        while True:
            time.sleep(wait)
            began = time.monotonic()
            try:
                self._prepare()
                found, held = self._round()
                # a listing of many files takes time: spend at most a tenth of it on looking
                wait = 0.0 if found else max(_LOOK_S, 10 * (time.monotonic() - began))
            except AwayError as error:
                found, held, self._ready = False, str(error), False
                wait = min(max(2 * wait, _FIRST_WAIT_S), _LONGEST_WAIT_S)
                self._say(f"{error}; trying again in {wait:.0f} s. Nothing is lost: the files keep the lines.")
            self.totals.failing_since = (self.totals.failing_since or time.time()) if held else 0.0
            if once and held:
                raise LogsUndeliveredError(
                    f"Not all lines were sent: {held}. They stay in their files; run this again."
                )
            if once and not found:
                return

    def _prepare(self) -> None:
        if not self._ready:
            self._elasticsearch.prepare()
            if self._has_stored and self._elasticsearch.is_empty():
                self._files.forget()
                self._has_stored = False
            self._ready = True
        if time.monotonic() - self._deleted_at > _DELETE_EVERY_S or not self._deleted_at:
            for name in self._elasticsearch.delete_old(datetime.now(UTC).date()):
                self._say(f"Deleted {name}: it is older than {self._keep_days} days.")
            self._deleted_at = time.monotonic()

    def _round(self) -> tuple[bool, str]:
        """Send the unread lines of all files once.

        Returns:
            Whether there were any that can be sent, and why some can't be sent now.
        """
        batch, found, held = _Batch(), False, ""
        for file in self._files.unread(since=time.time() - self._keep_days * _DAY_S):
            if time.monotonic() < file.waits_until:
                held = file.waits_because
                continue
            for line in file.lines():
                found = True
                self._add(batch, file, line)
                if batch.is_full:
                    held = self._send(batch) or held
                    batch = _Batch()
                    if file.waits_until:
                        break
        if batch.ends:
            held = self._send(batch) or held
        return found and not held, held

    def _add(self, batch: _Batch, file: LogFile, line: Line) -> None:
        previous = batch.ends[id(file)][2] if id(file) in batch.ends else file.stamp
        stamp = previous
        try:
            fields = self._fields(file, line, previous)
            if fields is not None:
                document = Document.of(fields)
                stamp = str(fields["@timestamp"])
                if not self._is_old(document.index):
                    batch.documents.append(document)
                    batch.owners.append(file)
                    batch.size += len(document.encoded)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # a line in a form that no program of ours writes must not stop the others
            batch.refused.append((file, {"reason": one_line(error), "line": self._redact(line.text)}))
            batch.size += len(line.text)
        batch.ends[id(file)] = (file, line.end, stamp)

    def _fields(self, file: LogFile, line: Line, previous: str | None) -> dict[str, Any] | None:
        reader = reader_of(file.path)
        if reader is None or not line.text.strip():
            return None
        return dict(self._redact(reader(line.text, replace(line.position, after=previous))))

    def _is_old(self, index: str) -> bool:
        oldest = datetime.now(UTC).date() - timedelta(days=self._keep_days)
        return index < f"{INDEX}-{oldest:%Y.%m.%d}"

    def _send(self, batch: _Batch) -> str:
        """Send a batch, and advance each file whose lines are all stored or refused. The others wait.

        Returns:
            Why some wait; an empty text if all moved on.

        Raises:
            AwayError: nothing is known about the lines of the batch; no file moves on.
        """
        # it may have been restarted with nothing in it, not even the template
        if self._has_stored and self._elasticsearch.is_empty():
            raise AwayError(f"{self._elasticsearch.url} has lost its lines, and gets all of them again")
        results = self._elasticsearch.store(batch.documents) if batch.documents else []
        held = {id(owner): result for owner, result in zip(batch.owners, results, strict=True) if _must_wait(result)}
        refused = list(batch.refused)
        for document, owner, result in zip(batch.documents, batch.owners, results, strict=True):
            if result.refused:
                refused.append((owner, {"reason": result.reason, "index": document.index, "line": document.fields}))
        # a file that waits is read again, and its refused lines with it
        self._write_refused([entry for owner, entry in refused if id(owner) not in held])
        stored = sum(result.stored for result in results)
        self.totals.stored += stored
        self._has_stored = self._has_stored or stored > 0
        for key, (file, end, stamp) in batch.ends.items():
            if key in held:
                file.wait = min(max(2 * file.wait, _FIRST_WAIT_S), _LONGEST_WAIT_S)
                file.waits_until = time.monotonic() + file.wait
                file.waits_because = held[key].reason
            else:
                file.offset, file.stamp, file.wait, file.waits_until = end, stamp, 0.0, 0.0
        if not held:
            return ""
        reason = next(iter(held.values())).reason
        self._say(f"{self._elasticsearch.url} does not take lines now ({reason}); they stay in their files.")
        return reason

    def _write_refused(self, entries: list[dict[str, Any]]) -> None:
        if not entries:
            return
        lines = [dump(entry) + "\n" for entry in entries]
        try:
            with self._refused.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:
            raise AwayError(f"{self._refused} can't be written: {error.strerror}") from None
        self.totals.refused += len(lines)
        self._say(f"{len(lines)} lines can't be stored; {self._refused} has them, with the reason of each.")


def _must_wait(result: Result) -> bool:
    return not result.stored and not result.refused
