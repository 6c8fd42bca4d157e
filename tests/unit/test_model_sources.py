"""On which sources models stand together, as the export of schedules needs it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tidemark.project import model_sources, sources
from tidemark.project.sources import SourceDefinition

NAMES = ("postgres", "crm", "erp", "web")
PARENTS = {
    "source.a": [],
    "source.b": [],
    "source.c": [],
    "source.elsewhere": [],
    "model.crm": ["source.b"],
    "model.crm_and_erp": ["model.crm", "source.c"],
    "model.deeper": ["model.crm_and_erp"],
    "model.seedless": [],
    "test.both": ["source.a", "model.crm"],
    "model.external": ["source.elsewhere", "source.a"],
}
SCHEMAS = {"source.a": "raw", "source.b": "raw_crm", "source.c": "raw_erp", "source.elsewhere": "theirs"}


@pytest.fixture
def together(tmp_path, monkeypatch):
    def find(count: int, manifest: object = None) -> list[list[str]]:
        used = [SourceDefinition(name, raw_schema=f"raw_{name}" if name != "postgres" else "raw") for name in NAMES]
        monkeypatch.setattr(sources, "active", lambda _: used[:count])
        if manifest:
            (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        return model_sources.together(SimpleNamespace(dbt_target=tmp_path))

    return find


def test_sources_are_together_where_a_model_or_a_test_needs_both(together):
    manifest = {"parent_map": PARENTS, "sources": {name: {"schema": schema} for name, schema in SCHEMAS.items()}}
    assert together(4, manifest) == [["crm", "erp"], ["crm", "postgres"]]


def test_nothing_is_looked_up_for_two_sources_or_before_the_first_build(together):
    assert together(3) == []
    assert together(2, {"parent_map": {}, "sources": {}}) == []


def test_a_long_chain_of_models_is_followed(together):
    chain = {f"model.{n}": [f"model.{n + 1}"] for n in range(5000)}
    chain["model.5000"] = ["source.a", "source.b"]
    schemas = {"source.a": {"schema": "raw"}, "source.b": {"schema": "raw_crm"}}
    assert together(3, {"parent_map": {**chain, "source.a": [], "source.b": []}, "sources": schemas}) == [
        ["crm", "postgres"]
    ]
