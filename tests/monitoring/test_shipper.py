"""`tidemark logs ship` loses no line and doubles none, whatever happens to it, to Elasticsearch and to the files."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.conftest import REPOSITORY
from tests.monitoring.sink import ALIAS, Sink
from tests.ports import free_port
from tidemark.logs.fields import dump, entry, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = datetime.now(UTC)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made


class Log:
    """A log file that is written like ours, and what was written to it."""

    def __init__(self, directory: Path, name: str = "meltano.jsonl") -> None:
        self.path = directory / name
        self.written: list[tuple[str, str]] = []

    def write(self, message: str = "a line", at: datetime = NOW, **more: Any) -> str:
        fields = entry(message, level="info", dataset="test", service="test", at=stamp(at), more=more)
        with self.path.open("a") as file:
            file.write(dump(fields) + "\n")
        self.written.append((f"{ALIAS}-{at:%Y.%m.%d}", fields["event.id"]))
        return str(fields["event.id"])

    def rotate(self) -> None:
        """Rename the files, as ConcurrentRotatingFileHandler does."""
        for number in itertools.count(1):
            if not self.path.with_name(f"{self.path.name}.{number}").exists():
                break
        for each in range(number, 1, -1):
            self.path.with_name(f"{self.path.name}.{each - 1}").rename(self.path.with_name(f"{self.path.name}.{each}"))
        self.path.rename(self.path.with_name(f"{self.path.name}.1"))


def command(sink: Sink, tmp_path: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    (tmp_path / "logs").mkdir(exist_ok=True)
    arguments = ["logs", "ship", str(tmp_path / "logs"), "--refused", str(tmp_path / "refused.jsonl"), *options]
    own = {"TIDEMARK_ELASTICSEARCH_URL": sink.url, "TIDEMARK_LOG_DIR": str(tmp_path / "own")}
    env = {**os.environ, "MELTANO_PROJECT_ROOT": str(REPOSITORY), **own}
    return [str(REPOSITORY / ".venv" / "bin" / "tidemark"), *arguments], env


def ship_once(sink: Sink, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    arguments, env = command(sink, tmp_path, "--once")
    return subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def shipping(
    sink: Sink, tmp_path: Path, end: signal.Signals = signal.SIGTERM, *options: str
) -> Iterator[subprocess.Popen[str]]:
    arguments, env = command(sink, tmp_path, *options)
    with subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("Sending log lines to ")
        try:
            yield process
        finally:
            process.send_signal(end)
            assert process.wait(timeout=30) == (0 if end == signal.SIGTERM else -end)


def until(holds: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def scraped(port: int) -> dict[str, float]:
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def refused(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]


@pytest.mark.monitoring
def test_an_outage_with_kills_of_the_shipper_loses_and_doubles_no_line(sink, tmp_path):
    (tmp_path / "logs").mkdir()
    log = Log(tmp_path / "logs")
    done = threading.Event()
    port, failing_since = free_port(), "tidemark_logs_failing_since_timestamp_seconds"

    def write() -> None:
        for number in itertools.count(1):
            if done.wait(0.002):
                return
            log.write(f"line {number}", NOW + timedelta(milliseconds=number))
            if number % 400 == 0:
                log.rotate()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for end in (signal.SIGTERM, signal.SIGKILL):
            with shipping(sink, tmp_path, end, "--port", str(port)) as process:
                assert process.stderr
                assert "Nothing is lost" in process.stderr.readline()
                until(lambda: scraped(port)[failing_since] > NOW.timestamp())
        sink.start()
        with shipping(sink, tmp_path, signal.SIGKILL):
            until(lambda: bool(sink.stored()))
        with shipping(sink, tmp_path, signal.SIGTERM, "--port", str(port)):
            until(lambda: len(sink.stored()) > 1500)
            # a restart with nothing in it, not even the template, and so quick that no request fails
            sink.stop()
            sink.start()
            until(lambda: len(sink.stored()) > 1500)
            done.set()
            writer.join()
            until(lambda: len(sink.stored()) >= len(log.written))
            until(lambda: scraped(port)[failing_since] == 0)
            assert scraped(port)['tidemark_logs_lines_total{outcome="stored"}'] >= len(log.written)
    finally:
        done.set()
        writer.join()
    assert sink.stored() == sorted(log.written)
    assert list(tmp_path.glob("logs/*.jsonl.[0-9]")), "files were rotated meanwhile"
    assert refused(tmp_path) == []
    assert ship_once(sink, tmp_path).returncode == 0
    assert sink.stored() == sorted(log.written), "a further start sends all again, and doubles nothing"


@pytest.mark.monitoring
def test_a_full_disk_holds_lines_back_until_there_is_room_and_other_days_go_on(sink, tmp_path):
    sink.start()
    (tmp_path / "logs").mkdir()
    today, yesterday = Log(tmp_path / "logs"), Log(tmp_path / "logs", "other.jsonl")
    today.write()
    assert ship_once(sink, tmp_path).returncode == 0
    # what Elasticsearch does to an index when its disk is nearly full
    index = today.written[0][0]
    sink.ask("PUT", f"/{index}/_settings", {"index.blocks.read_only_allow_delete": True})
    for _ in range(5):
        today.write()
        yesterday.write(at=NOW - timedelta(days=1))
    undelivered = ship_once(sink, tmp_path)
    assert undelivered.returncode == os.EX_TEMPFAIL
    assert "429 cluster_block_exception" in undelivered.stderr
    port, failing_since = free_port(), "tidemark_logs_failing_since_timestamp_seconds"
    with shipping(sink, tmp_path, signal.SIGTERM, "--port", str(port)):
        until(lambda: len(sink.stored()) == 6)
        until(lambda: scraped(port)[failing_since] > 0)
        since, told = scraped(port)[failing_since], time.monotonic()
        while time.monotonic() < told + 5:
            # it tries again after 1, 2 and 4 s, and between these nothing has changed
            assert scraped(port)[failing_since] == since
            time.sleep(0.1)
        sink.ask("PUT", f"/{index}/_settings", {"index.blocks.read_only_allow_delete": None})
        until(lambda: len(sink.stored()) == 11)
        until(lambda: scraped(port)[failing_since] == 0)
    assert sink.stored() == sorted(today.written + yesterday.written)
    assert refused(tmp_path) == []


def test_a_line_that_is_refused_is_kept_with_its_reason_and_the_others_go_on(sink, tmp_path):
    sink.start()
    (tmp_path / "logs").mkdir()
    log = Log(tmp_path / "logs")
    log.write()
    bad = log.write(**{"process.pid": "not a number"})
    with log.path.open("a") as file:
        file.write('{"@timestamp":"yesterday","event.id":"x"}\n')
    log.write()
    for _ in range(2):
        # each start finds them again, and says it once
        assert ship_once(sink, tmp_path).returncode == 0
        assert sink.stored() == sorted(pair for pair in log.written if pair[1] != bad)
        dated, mapped = sorted(refused(tmp_path), key=lambda each: "index" in each)
        assert mapped["line"]["event.id"] == bad
        assert "process.pid" in mapped["reason"]
        assert "yesterday" in dated["reason"]


def test_a_line_goes_to_the_day_of_its_own_stamp_and_old_days_are_deleted(sink, tmp_path):
    sink.start()
    (tmp_path / "logs").mkdir()
    log = Log(tmp_path / "logs")
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    for moment in (midnight - timedelta(microseconds=1), midnight):
        log.write(at=moment)
    log.write(at=NOW - timedelta(days=40))
    kept, past = log.written[:2], log.written[2]
    sink.ask("PUT", f"/{past[0]}", {})
    assert ship_once(sink, tmp_path).returncode == 0
    assert sink.stored() == sorted(kept)
    assert len({index for index, _ in kept}) == 2
    assert sink.ask("GET", f"/{past[0]}").get("status") == 404, "an index past its time is deleted"


@pytest.mark.monitoring
def test_rotation_truncation_and_half_written_lines_lose_nothing(sink, tmp_path):
    sink.start()
    (tmp_path / "logs").mkdir()
    log = Log(tmp_path / "logs")
    with shipping(sink, tmp_path):
        first = log.write()
        log.rotate()
        log.write()
        until(lambda: len(sink.stored()) == 2)
        # PostgreSQL begins a file of the week's day again, in place
        log.path.write_text("")
        log.write("a longer line than the one that was here before")
        until(lambda: len(sink.stored()) == 3)
        # a writer was killed within a line; the next one continues behind it
        with log.path.open("a") as file:
            file.write('{"@timestamp":"2026-')
        time.sleep(1.5)
        assert len(sink.stored()) == 3
        log.write("after half a line")
        until(lambda: len(sink.stored()) == 4)
    assert sink.stored() == sorted(log.written)
    assert first in {identifier for _, identifier in sink.stored()}
