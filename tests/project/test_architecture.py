"""The fence around core that import-linter can't express, and what two environments have each for itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

SOURCES = sorted(REPOSITORY.glob("plugins/*/src"))
IMPORT_ALL = """
import importlib, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import singer_postgres.core
for module in pkgutil.walk_packages(singer_postgres.core.__path__, "singer_postgres.core."):
    importlib.import_module(module.name)
print(sys.modules["singer_postgres.core.sql_compat"].sql.__name__)
"""


@pytest.mark.parametrize(
    ("python", "missing", "composes"),
    [
        (sys.executable, "psycopg2", "psycopg.sql"),
        (str(REPOSITORY / ".meltano/extractors/tap-postgres/venv/bin/python"), "psycopg", "psycopg2.sql"),
    ],
    ids=["psycopg", "psycopg2"],
)
def test_core_needs_either_driver_and_no_singer(python, missing, composes):
    command = [python, "-c", IMPORT_ALL, missing, "singer_sdk", "tap_postgres", "target_postgres", "sqlalchemy"]
    environment = {"PYTHONPATH": str(REPOSITORY / "plugins/singer-postgres/src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, composes), done.stderr


def test_each_folder_of_code_is_a_package():
    folders = {path.parent for source in SOURCES for path in source.rglob("*.py")}
    assert len(folders) > 10
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_package_imports_another_by_a_string():
    named = re.compile(r"import_module\(|__import__\(")
    found = [str(path) for source in SOURCES for path in source.rglob("*.py") if named.search(path.read_text())]
    assert found == []


def test_airflow_and_tidemark_take_the_same_digest_of_meltanos_files():
    """Airflow's environment does not have tidemark, so the function is written twice."""
    bodies = set()
    for path in ("tidemark/src/tidemark/project/schedules", "tidemark-airflow/src/tidemark_airflow/current_schedules"):
        nodes = ast.parse((REPOSITORY / "plugins" / f"{path}.py").read_text()).body
        (digest,) = [each for each in nodes if isinstance(each, ast.FunctionDef) and each.name.lstrip("_") == "digest"]
        bodies.add("\n".join(map(ast.unparse, digest.body)))
    assert len(bodies) == 1


def test_a_run_of_meltano_is_started_in_one_place():
    """Its log, its lock and the history of its streams belong together, whatever starts it."""
    starts = re.compile(r"\b(logged|failed_streams\.recorded|meltano_run\.run)\(")
    package = REPOSITORY / "plugins/tidemark/src/tidemark"
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(starts.search(line) and not line.startswith("def ") for line in path.read_text().splitlines())
    }
    assert found == {"run/runner.py"}
