"""A project's YAML is read as Meltano reads it, and what is wrong with it is told in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tidemark.errors import UsageError
from tidemark.project import yaml_files
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("plugins:\n  extractors: []\n  loaders: []\n  extractors: []\n", "line 4, column 3: duplicate key extractors"),
        ("plugins: [a\nb: 1\n", "line 2, column 2: did not find expected ',' or ']'"),
        ("plugins: \x01\n", "control characters are not allowed"),
    ],
    ids=["a key twice", "a list without end", "a control character"],
)
def test_a_file_that_meltano_could_not_read_is_named_with_the_place(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "meltano.yml").write_text(content)
    with pytest.raises(UsageError) as raised:
        yaml_files.read(Project(tmp_path))
    assert str(raised.value).startswith(f"{tmp_path / 'meltano.yml'} can't be read: ")
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_key_that_overrides_one_of_an_anchor_is_no_duplicate(tmp_path: Path) -> None:
    (tmp_path / "meltano.yml").write_text(
        "one: &one {a: 1, b: 2}\nx: {deep: {two: &two {<<: *one, a: 3}}}\nthree: {<<: *two, c: 4}\nn: {1: a, '1': b}\n"
    )
    (found,) = yaml_files.read(Project(tmp_path)).documents
    assert found["x"]["deep"]["two"] == {"a": 3, "b": 2}
    assert found["three"] == {"a": 3, "b": 2, "c": 4}
