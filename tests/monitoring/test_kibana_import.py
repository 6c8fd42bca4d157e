"""`tidemark logs dashboards` sends Kibana its objects as Kibana's API wants them. Kibana itself is not at hand."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.monitoring
OBJECTS = (REPOSITORY / "monitoring" / "logs" / "kibana" / "tidemark.ndjson").read_bytes()


@contextmanager
def kibana(status: int, answer: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """Answer each request like this; yield the address and what was asked."""
    asked: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def dashboards(tmp_path, url: str) -> subprocess.CompletedProcess[str]:
    own = {"TIDEMARK_ELASTICSEARCH_KIBANA_URL": url, "TIDEMARK_ELASTICSEARCH_API_KEY": "the-api-key"}
    return subprocess.run(
        [REPOSITORY / ".venv" / "bin" / "tidemark", "logs", "dashboards"],
        env={**os.environ, "MELTANO_PROJECT_ROOT": str(REPOSITORY), "TIDEMARK_LOG_DIR": str(tmp_path), **own},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_objects_are_imported_over_earlier_copies(tmp_path):
    with kibana(200, {"success": True, "successCount": OBJECTS.count(b"\n")}) as (url, asked):
        done = dashboards(tmp_path, url)
    assert done.returncode == 0, done.stderr
    ((path, headers, body),) = asked
    assert path == "/api/saved_objects/_import?overwrite=true"
    assert headers["kbn-xsrf"] == "true"
    assert headers["Authorization"] == "ApiKey the-api-key"
    assert headers["Content-Type"].startswith("multipart/form-data")
    assert OBJECTS in body


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (200, {"success": False, "errors": [{"id": "tidemark-runs", "error": {"type": "unknown"}}]}, "tidemark-runs"),
        (401, {"statusCode": 401, "message": "no valid credentials"}, "no valid credentials"),
    ],
    ids=["object-refused", "login-refused"],
)
def test_a_refusal_ends_in_one_line(tmp_path, status, answer, said):
    with kibana(status, answer) as (url, _):
        done = dashboards(tmp_path, url)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line
    assert "the-api-key" not in line + (tmp_path / "meltano.jsonl").read_text()
