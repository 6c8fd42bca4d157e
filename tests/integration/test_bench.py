"""The benchmarks run, each on very little data. These figures mean nothing and are kept apart from the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile

import pytest

from tests.conftest import REPOSITORY


def bench(module: str, results, **options: str) -> str:
    """Run a benchmark as its make target does; return its output."""
    # into a file: the processes that it starts to fork programs from would keep a pipe open
    with tempfile.TemporaryFile("w+") as printed:
        done = subprocess.run(
            [REPOSITORY / ".venv" / "bin" / "python", "-m", module],
            cwd=REPOSITORY,
            env={**os.environ, "RESULTS": str(results), "ROUNDS": "1", **options},
            stdout=printed,
            stderr=subprocess.STDOUT,
            check=False,
        )
        printed.seek(0)
        text = printed.read()
    assert done.returncode == 0, text
    return text


@pytest.mark.long
def test_the_benchmark_of_loads_runs_and_its_rows_are_right(tmp_path):
    bench("bench", tmp_path, SCALE="0.002", PEERS="raw,tidemark")
    (section,) = json.loads((tmp_path / "results.json").read_text()).values()
    runs = {
        name: {kind: [run["right"] for run in each] for kind, each in peer["runs"].items()}
        for name, peer in section["peers"].items()
    }
    assert runs == {
        "raw COPY": {"first load": [True], "1 % changed": [True]},
        "tidemark": {"first load": [True], "idle": [True], "1 % changed": [True]},
    }
    assert "| tidemark |" in (tmp_path / "results.md").read_text()
    league = json.loads((tmp_path / "data-movement" / "the-demo-shop-at-scale-0.002-tidemark.json").read_text())
    (repetition,) = league["reps"]
    assert {each["role"] for each in repetition["resources"]} == {"tidemark", "source", "sink"}
    assert sum(each["sink"] for each in repetition["parity"]) == league["rows"]


@pytest.mark.long
def test_the_benchmark_of_reconcile_runs(tmp_path):
    bench("bench.reconcile", tmp_path, ROWS="20000")
    assert "| `tidemark reconcile`, including start-up |" in (tmp_path / "reconcile.md").read_text()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_benchmark_of_builds_runs(tmp_path):
    bench("bench.transform", tmp_path, SCALES="0.002", ROWS="50")
    assert "| whole build without dbt's start |" in (tmp_path / "transform.md").read_text()


@pytest.mark.long
def test_the_benchmark_of_changes_runs_and_compares_each_tool_with_the_source(tmp_path):
    options = {"ROWS": "20000", "CHANGES": "5000", "SECONDS": "10", "RATE": "100", "PEERS": "tidemark,subscription"}
    bench("bench.cdc", tmp_path, **options)
    results = json.loads((tmp_path / "cdc.json").read_text())
    assert results["backlog"]["changes"] == results["decoded"]["changes"] > 0
    assert results["followed"]["p50"] <= results["followed"]["worst"][0]["seconds"]
    for peer in results["race"]["peers"].values():
        assert peer["why"] is None
        assert [set(run["differences"].values()) for run in [*peer["runs"], peer["large"]]] == [{0}, {0}]
    assert "| tidemark |" in (tmp_path / "cdc.md").read_text()
