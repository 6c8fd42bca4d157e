"""Runs the plugins' own tests, including the Singer SDK's suites, in the plugins' environments."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.programs import TAP, TARGET

PACKAGE = REPOSITORY / "plugins" / "singer-postgres"
TEST_TOOLS = REPOSITORY / ".venv" / "singer-test"
CONNECTION = ("host", "port", "user", "password", "database")


# fewer tests than this mean that a suite was not found
@pytest.mark.parametrize(
    ("kind", "which", "least"),
    [
        pytest.param("tap", "not long", 200, id="tap"),
        pytest.param("target", "not long", 40, id="target", marks=pytest.mark.long),
        pytest.param("target", "long", 50, id="target-long", marks=pytest.mark.long),
    ],
)
def test_the_suite_of_the_sdk_and_the_plugins_own_tests_pass(kind, which, least, pipe):
    # installed by plugins/bootstrap.py --dev
    assert (TEST_TOOLS / "pytest").is_dir(), f"{TEST_TOOLS} is missing; run `make setup-dev`."
    program, config = (TAP, pipe.configs()[0]) if kind == "tap" else (TARGET, pipe.configs()[1])
    settings = json.loads(config.read_text())
    done = subprocess.run(
        [
            *(program.with_name("python"), "-m", "pytest", "-p", "no:cacheprovider", "-c", "pytest.ini"),
            *("-m", which, f"tests/{kind}"),
        ],
        cwd=PACKAGE,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PG"))},
            "PYTHONPATH": str(TEST_TOOLS),
            # Hypothesis keeps its database there
            "HYPOTHESIS_STORAGE_DIRECTORY": str(pipe.directory / "hypothesis"),
            "SINGER_POSTGRES_TEST_CONNECTION": json.dumps({name: settings[name] for name in CONNECTION}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= least, done.stdout
