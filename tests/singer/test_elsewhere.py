"""The package in another Meltano project: its wheel, with the definitions from its README."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = REPOSITORY / "plugins" / "singer-postgres"
BIN = REPOSITORY / ".venv" / "bin"
_NO_NETWORK = re.compile(
    r"dns error|failed to (fetch|lookup)|error sending request|connection refused|network is", re.IGNORECASE
)


def definition() -> str:
    """Return the README's definitions for meltano.yml."""
    found = re.search(r"<!-- definition -->\n```yaml\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def run(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    if done.returncode and "install" in command and _NO_NETWORK.search(said):
        pytest.skip(f"no package index can be reached: {said.strip().splitlines()[-1]}")
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{said}"
    return said


@pytest.mark.long
def test_the_wheel_and_the_definition_in_its_readme_move_a_table_in_an_empty_project(pipe, tmp_path):
    ours = ("MELTANO_", "TAP_", "TARGET_", "TIDEMARK_", "PG", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    build = (BIN / "uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--python", BIN / "python")
    run(*build, "--out-dir", tmp_path, PACKAGE, cwd=tmp_path, env=env)
    head = "default_environment: dev\nenvironments: [{name: dev}]\n"
    (tmp_path / "meltano.yml").write_text(head + definition())
    env |= {"MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false", "MELTANO_CLI_DISABLE_VERSION_CHECK": "true"}
    run(BIN / "meltano", "install", cwd=tmp_path, env=env)
    for prefix, url in [("TAP", pipe.source_url), ("TARGET", pipe.warehouse_url)]:
        parts = psycopg.conninfo.conninfo_to_dict(url)
        for name, key in {
            "host": "HOST",
            "port": "PORT",
            "user": "USER",
            "password": "PASSWORD",
            "dbname": "DATABASE",
        }.items():
            env[f"{prefix}_POSTGRES_{key}"] = str(parts[name])
    pipe.do("create table orders (id bigint primary key, amount numeric(12,2)); insert into orders values (1, 2.50)")
    run(BIN / "meltano", "run", "tap-postgres", "target-postgres", cwd=tmp_path, env=env)
    assert pipe.rows("select id, amount::text from raw.orders") == [(1, "2.50")]
    # only chunks have this column, so the rows did not come as records
    assert pipe.rows("select stream, has_rows from raw._tidemark_state") == [("public-orders", True)]
