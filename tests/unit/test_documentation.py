from __future__ import annotations

import socket
from threading import Thread
from urllib.request import urlopen

import pytest

from tidemark.errors import UsageError
from tidemark.local import documentation


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_the_documentation_is_served_at_the_requested_address(tmp_path, host):
    (tmp_path / "index.html").write_text("the models")
    port = free_port()
    with documentation.serving(tmp_path, host, port) as serve:
        Thread(target=serve, daemon=True).start()
        with urlopen(f"http://127.0.0.1:{port}/index.html") as page:
            assert page.read() == b"the models"


def test_a_taken_port_and_a_foreign_address_are_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(UsageError, match=rf"^Port {port} is taken .*--port {port + 1}"),
            documentation.serving(tmp_path, "127.0.0.1", port),
        ):
            pass
    with (
        pytest.raises(UsageError, match=r"^--host is '192\.0\.2\.1'"),
        documentation.serving(tmp_path, "192.0.2.1", port),
    ):
        pass
