"""Rules that hold for any project, on its own files (`tidemark check --files`): what one names, another has."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import AS_CLONED, REPOSITORY, shop_is_as_cloned
from tidemark.inspect.check import files, settings
from tidemark.inspect.check.finding import Level
from tidemark.project import yaml_files
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from pathlib import Path

JOBS, TAP = "orchestrate/jobs.meltano.yml", "extract/extractors.meltano.yml"


# `make test` runs the same by itself
@pytest.mark.long
def test_this_projects_files_keep_the_rules():
    assert files.check(Project(REPOSITORY)) == []


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The files of a new clone, with Meltano's definitions."""
    shutil.copytree(AS_CLONED, tmp_path, dirs_exist_ok=True)
    shutil.copy(REPOSITORY / ".env.example", tmp_path)
    for kind in ("extractors", "loaders", "utilities"):
        (tmp_path / "plugins").mkdir(exist_ok=True)
        (tmp_path / "plugins" / kind).symlink_to(REPOSITORY / "plugins" / kind)
    return Project(tmp_path)


STALE = "orchestrate/schedules.json is not what Meltano's files say: `tidemark schedules` writes it again; commit it"


def of_meltano(project: Project) -> list[str]:
    return list(dict.fromkeys(files.of_meltano(project, yaml_files.read(project))))


def test_the_files_of_a_new_clone_keep_the_rules(project):
    assert of_meltano(project) == []


@pytest.mark.parametrize(
    ("name", "before", "after", "said"),
    [
        ("meltano.yml", "load/*.meltano.yml", "loads/*.meltano.yml", "meltano.yml includes loads/*.meltano.yml, which"),
        (TAP, "variant: tidemark", "variant: mine", "The plugin tap-postgres has no definition: its variant is 'mine'"),
        (TAP, "        - public-orders.*\n", "", "tap-postgres has `metadata` for public-orders, which its `select`"),
        (JOBS, "dbt-postgres:run", "dbt-shop:run", "job transform runs dbt-shop, which is no plugin of this project"),
        (JOBS, "dbt-postgres:run", "dbt-postgres:rum", "job transform runs dbt-postgres:rum, and dbt-postgres has no "),
        (JOBS, "job: backup", "job: backups", "schedule nightly-backup names the job backups, which is not there"),
        (TAP, "      select:", "      config: {where: $SHOP_ORDERS}\n      select:", f"{TAP} has $SHOP_ORDERS, which"),
    ],
    ids=["a path", "a variant", "a stream", "a plugin", "a command", "a job", "a variable"],
)
def test_what_one_file_names_and_no_other_has_is_said(project, name, before, after, said):
    path = project.root / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    first, *_ = found = [each for each in of_meltano(project) if each != STALE]
    assert first.startswith(said), found
    assert STALE in of_meltano(project)


@pytest.mark.parametrize(
    ("shards", "said"),
    [("0", "has shards 0"), ("four", "has shards 'four'"), ("2.5", "has shards 2.5"), ("true", "has shards True")],
)
def test_a_schedule_of_a_number_of_shards_that_can_not_be_is_said(project, shards, said):
    path = project.root / JOBS
    path.write_text(path.read_text().replace("job: reconcile\n", f"job: reconcile\n    shards: {shards}\n"))
    (found,) = settings.findings(project, yaml_files.read(project))
    assert found.level is Level.error
    assert f"The schedule nightly-reconcile {said}: write how many runs" in found.what


@pytest.mark.parametrize(
    ("tasks", "is_shared"),
    [
        ("- tidemark:reconcile", False),
        ("- tap-postgres target-postgres dbt-postgres:run", False),
        ("- [tap-postgres target-postgres, dbt-postgres:run]", False),
        ("- tap-postgres map target-postgres", False),
        ("- [tap-postgres, target-postgres]", True),
    ],
    ids=["no load", "with models", "a list with models", "with a mapper", "a load"],
)
def test_shards_of_a_schedule_that_has_no_load_of_a_source_alone_are_said(project, tasks, is_shared):
    path = project.root / JOBS
    text = path.read_text().replace("- tidemark:reconcile", tasks)
    path.write_text(text.replace("job: reconcile\n", "job: reconcile\n    shards: 4\n"))
    found = [each.what for each in settings.findings(project, yaml_files.read(project)) if each.level is Level.error]
    assert ["nightly-reconcile has shards 4, and no task of it is the load" in each for each in found] == (
        [] if is_shared else [True]
    )


def test_a_misspelt_number_of_shards_is_said(project):
    path = project.root / JOBS
    path.write_text(path.read_text().replace("job: reconcile\n", "job: reconcile\n    shard: 4\n"))
    (found,) = settings.findings(project, yaml_files.read(project))
    assert "`shard` of nightly-reconcile" in found.what


def manifest(*, sources: list[tuple[str, str]], tested: bool) -> dict[str, Any]:
    """Return dbt's manifest of one model."""
    nodes = {
        "model.shop.fct_orders": {
            "resource_type": "model",
            "package_name": "shop",
            "original_file_path": "models/marts/fct_orders.sql",
        },
        "test.shop.unique": {
            "resource_type": "test",
            "package_name": "shop",
            "attached_node": "model.shop.fct_orders" if tested else "model.shop.other",
            "test_metadata": {"name": "unique"},
        },
    }
    return {
        "metadata": {"project_name": "shop"},
        "sources": {f"source.{n}": {"schema": each[0], "identifier": each[1]} for n, each in enumerate(sources)},
        "nodes": nodes,
    }


@pytest.mark.parametrize(
    ("sources", "streams", "tested", "said"),
    [
        ([("raw", "orders"), ("raw", "_tidemark_state"), ("other", "a")], ["public-orders"], True, []),
        ([], ["public-orders"], True, ["public-orders is no source of dbt: describe raw.orders"]),
        ([("raw", "orders")], [], True, ["no stream loads dbt's source raw.orders"]),
        # only the source knows which tables a pattern matches
        ([("raw", "orders")], ["public-*"], True, []),
        ([], [], False, ["transform/models/marts/fct_orders.sql has no key that is tested"]),
    ],
    ids=["none", "a stream", "a source", "a pattern", "a model"],
)
def test_streams_sources_and_keys_of_models_fit_together(sources, streams, tested, said):
    exported = {"sources": [{"schema": "raw", "streams": streams}]}
    found = list(files.of_models(manifest(sources=sources, tested=tested), exported))
    assert len(found) == len(said)
    assert all(each.startswith(start) for each, start in zip(found, said, strict=True))


@pytest.mark.skipif(
    not shop_is_as_cloned(), reason="the project is a user's: it has a project_id of its own, or no shop"
)
def test_the_copies_of_a_new_clones_files_are_up_to_date():
    copies = {path.relative_to(AS_CLONED).as_posix() for path in AS_CLONED.rglob("*") if path.is_file()}
    for name in copies:
        assert (AS_CLONED / name).read_bytes() == (REPOSITORY / name).read_bytes(), (
            f"copy {name} to demo/project; or, in a project of your own, give it its own project_id in meltano.yml"
        )
