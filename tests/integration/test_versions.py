"""The whole job on a PostgreSQL that is not the wheel's."""

from __future__ import annotations

import pytest

from tests.integration.conftest import make_checkout
from tests.integration.test_pipeline import assert_raw_equals_source
from tests.servers import INSTALLATIONS


@pytest.mark.skipif("system" not in INSTALLATIONS, reason="needs a PostgreSQL of the system, as Debian's postgresql-15")
def test_the_systems_postgres_serves_as_well_as_the_wheels():
    for checkout in make_checkout("system"):
        checkout.tidemark("pipeline")
        assert_raw_equals_source(checkout)
