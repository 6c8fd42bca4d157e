"""Runs the tests of tidemark-airflow in Airflow's own environment."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "plugins" / "tidemark-airflow"
PYTHON = REPOSITORY / ".meltano" / "utilities" / "airflow" / "venv" / "bin" / "python"
TEST_TOOLS = REPOSITORY / ".venv" / "singer-test"


# fewer tests than this mean that a suite was not found
@pytest.mark.parametrize(
    ("which", "least"),
    [
        pytest.param(
            ("tests/environment", "tests/dags", "tests/alerts", "--ignore=tests/alerts/test_runs.py"),
            73,
            id="environment, dags, alerts",
            marks=pytest.mark.airflow,
        ),
        # these run Airflow's own processes
        pytest.param(("tests/alerts/test_runs.py",), 8, id="runs", marks=pytest.mark.airflow),
        pytest.param(("tests/streams",), 30, id="streams", marks=[pytest.mark.airflow, pytest.mark.timeout(600)]),
    ],
)
def test_the_tests_of_tidemark_airflow_pass(which, least):
    done = subprocess.run(
        [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-c", "pytest.ini", *which],
        cwd=PACKAGE,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PG"))},
            "PYTHONPATH": str(TEST_TOOLS),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= least, done.stdout
