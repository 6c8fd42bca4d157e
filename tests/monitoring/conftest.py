"""What the tests of monitoring share: a project whose warehouse has every kind of record, from real runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.stages import make_checkout
from tests.run_records import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="session")
def filled() -> Iterator[Checkout]:
    with contextmanager(make_checkout)(stage="built") as project:
        fill(project)
        (project.root / "transform" / "models" / "marts" / "broken.sql").write_text("select 1 / 0 as one")
        assert project.dbt("run", "--select", "broken").returncode == 1
        project.dbt("test")
        project.tidemark("backup")
        project.tidemark("backup", "drill", "--no-sync")
        yield project
