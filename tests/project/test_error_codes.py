"""Each error of the catalogue has a test that names its code, beside real programs and servers."""

from __future__ import annotations

import re

from singer_postgres.core.errors import catalogue
from tests.conftest import REPOSITORY
from tidemark import errors  # noqa: F401 - the catalogue includes its classes

# folders whose tests run the programs or put a server's real error through the code; tests/unit only names codes
FOLDERS = ("singer", "integration", "chaos", "monitoring")
NEVER_RAISED = {
    "unexpected": "an error that nobody thought of; whoever can raise it on purpose gives it a code of its own",
}


def test_each_code_is_named_by_a_test_with_real_programs():
    files = [path for folder in FOLDERS for path in (REPOSITORY / "tests" / folder).glob("test_*.py")]
    named = {word for path in files for word in re.findall(r'"(\w+)"', path.read_text())}
    assert {kind.code for kind in catalogue()} - named == NEVER_RAISED.keys()
