"""What the tests get: a filled warehouse, and a running Airflow."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

if TYPE_CHECKING:
    import subprocess

REPOSITORY = Path(__file__).resolve().parents[4]
JWT_SECRET = "a secret of this test alone, as long as the signature wants one to be: 64 bytes"


@dataclass(frozen=True)
class Filled:
    """A warehouse: the variables by which the page finds it, and a connection as its owner."""

    variables: dict[str, str]
    owner: str

    def do(self, *statements: str) -> None:
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@dataclass
class Airflow:
    """A running api-server with one user of each relevant kind; each user's password is their name."""

    url: str
    home: Path

    def token(self, user: str = "viewer") -> str:
        answer = httpx.post(f"{self.url}/auth/token", json={"username": user, "password": user})
        return answer.raise_for_status().json()["access_token"]

    def ask(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        return httpx.request(method, f"{self.url}{path}", timeout=30, **options)

    def wait(self, server: subprocess.Popen[bytes], log: Path) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 90
        while True:
            try:
                self.ask("/api/v2/version").raise_for_status()
            except httpx.HTTPError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            else:
                return
