"""Fixtures for faults in whole projects, or in tap and target alone. See also `make chaos`."""

from __future__ import annotations

import os

from tests.integration.conftest import checkout, checkout_on_the_systems_postgres
from tests.singer.conftest import installed, make_pipe, pipe

__all__ = ["checkout", "checkout_on_the_systems_postgres", "installed", "make_pipe", "pipe"]

# `make chaos` runs the long form of each test
LONG = "CRASHES" in os.environ
