"""What `make security` finds, and how it ends without a network."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRETS = REPOSITORY / ".ci" / "secrets"
REQUIREMENTS = REPOSITORY / "plugins" / "requirements"
ADVISORIES = REPOSITORY / ".ci" / "advisories.py"


def git(repository: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Someone", "-c", "user.email=someone@example.com"]
    subprocess.run(["git", *who, *arguments], cwd=repository, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "README").write_text("Nothing to hide.\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "Begin")
    return tmp_path


def scan(repository: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SECRETS, repository], capture_output=True, text=True, check=False)


def test_a_repository_without_secrets_passes(repository):
    done = scan(repository)
    assert (done.returncode, done.stdout) == (0, "No secret in 1 commits and 1 files.\n"), done.stderr


def test_a_password_of_the_project_is_found_before_it_is_committed(repository):
    password = secrets.token_urlsafe(24)
    (repository / "notes.txt").write_text(f"TARGET_POSTGRES_PASSWORD={password}\n")
    done = scan(repository)
    assert done.returncode == 1
    assert "notes.txt" in done.stdout
    assert done.stderr.startswith("error: there are secrets in the places above")
    # many people read a log of CI
    assert password not in done.stdout + done.stderr


def test_a_removed_secret_is_found_in_the_history(repository):
    webhook = f"https://hooks.slack.com/services/T{secrets.token_hex(4).upper()}/B{secrets.token_hex(4).upper()}/"
    (repository / "alerts.yml").write_text(f"webhook: {webhook}{secrets.token_hex(12)}\n")
    git(repository, "add", ".")
    git(repository, "commit", "-m", "Tell of failures")
    git(repository, "rm", "alerts.yml")
    git(repository, "commit", "-m", "Tell nobody")
    # a worktree has no separate history
    git(repository, "worktree", "add", "--quiet", str(repository / "beside"))
    done = scan(repository / "beside")
    assert done.returncode == 1
    assert "alerts.yml" in done.stdout


@contextmanager
def service(advisories: dict[str, str]) -> Iterator[str]:
    """Answer as OSV does: each of these packages has an advisory, fixed in the given version."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]
            fixed = advisories.get(asked["name"])
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]
            found = {"id": "PYSEC-2099-1", "summary": "Bad.", "affected": [{"package": asked, "ranges": ranges}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"vulns": [found]} if fixed else {}).encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def advisories(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ADVISORIES, *arguments], capture_output=True, text=True, check=False)


def test_each_pinned_version_is_looked_up_and_an_advisory_is_a_failure():
    pins = [(REQUIREMENTS / f"{name}.txt").read_text() for name in ("tap-postgres", "target-postgres")]
    with service({"psycopg2-binary": "9.9.9"}) as url:
        done = advisories("--service", url)
    assert done.returncode == 1, done.stderr
    versions = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("psycopg2-binary ")}
    # tap and target pin two versions
    assert len(versions) == 2
    assert all(any(f"psycopg2-binary=={version} " in text for text in pins) for version in versions)
    assert "9.9.9" in done.stdout
    assert "make requirements UPGRADE=1" in done.stderr


@pytest.mark.long
def test_pins_without_an_advisory_pass():
    with service({}) as url:
        done = advisories("--service", url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" pinned packages.\n")


def test_without_a_network_one_line_says_so_and_only_ci_fails():
    nobody = "http://127.0.0.1:9/v1/query"
    done = advisories("--service", nobody)
    line = f"Advisories were not looked up: {nobody} can't be reached (ConnectionError).\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")
    assert advisories("--service", nobody, "--required").returncode == 1
