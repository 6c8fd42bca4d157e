"""The change tracking of raw tables, which the package in_place and the roles of the warehouse both have."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY
from tidemark import roles

MACROS = REPOSITORY / "transform/packages/in_place/macros"


@pytest.mark.parametrize(
    ("function", "file"), [("track_changes", "logging_function.sql"), ("trim_changes", "trimming.sql")]
)
def test_the_transformers_function_has_the_packages_body(function, file):
    macro = (MACROS / file).read_text()
    (body,) = re.findall(rf"{{% macro {function}_body\(\) %}}\n(.*?){{% endmacro %}}", macro, re.DOTALL)
    (ours,) = re.findall(
        rf"CREATE OR REPLACE FUNCTION tidemark\.{function}\(.*?AS \$body\$\n(.*?)\$body\$;",
        roles.statements("warehouse"),
        re.DOTALL,
    )
    # Jinja would change it
    assert not re.search(r"{[{%#]", body)
    assert ours == body


def test_the_tables_beside_raw_tables_are_those_beside_models():
    def tables(name: str) -> dict[str, str]:
        text = re.sub(r"--.*", "", (MACROS / name).read_text().replace("pg_catalog.", ""))
        pattern = r"create table (?:%1\$I|{{ quoted }})\.(_tidemark_changes|_tidemark_tracked) \((.*?)\);"
        found = re.findall(pattern, text, re.DOTALL)
        return {table: "".join(re.sub(r"'", "", columns).split()) for table, columns in found}

    assert tables("logging_function.sql") == tables("run_start.sql")
    assert set(tables("logging_function.sql")) == {"_tidemark_changes", "_tidemark_tracked"}
