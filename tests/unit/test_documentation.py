from __future__ import annotations

import re
import socket
from threading import Thread
from types import SimpleNamespace
from urllib.request import urlopen

import pytest

from tidemark.errors import TidemarkError, UsageError
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


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            """echo '{"error": {"message": "no column \\"x\\"."}}' >> "$TIDEMARK_RUN_EVENTS"; exit 1""",
            'no column "x"; run',
        ),
        ("echo 'Python is too old' >&2; exit 1", "Python is too old; run"),
        ("exit 1", "it gave no reason; run"),
    ],
    ids=["dbt", "meltano", "silent"],
)
def test_why_the_documentation_could_not_be_built_is_told(tmp_path, script, told):
    meltano = tmp_path / "meltano"
    meltano.write_text(f"#!/bin/sh\n{script}\n")
    meltano.chmod(0o755)
    project = SimpleNamespace(meltano=meltano, root=tmp_path, state_dir=tmp_path, dbt_target=tmp_path)
    with pytest.raises(TidemarkError, match=rf"^dbt could not build the documentation: {re.escape(told)}"):
        documentation.build(project)


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
