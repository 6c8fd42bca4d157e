"""Makes a project that is no clone: the user's files without the demo, and what a release writes into a project."""

from __future__ import annotations

import json
import re
import shutil
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tidemark.errors import UsageError
from tidemark.project import demo_files
from tidemark.project.directory import Project
from tidemark.release import contents, definitions, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

# files that are the user's from then on; a release changes none of them
_TEMPLATES = {
    "Makefile": "Makefile",
    "gitignore": ".gitignore",
    "README": "README.md",
    "workflow.yml": ".github/workflows/project.yml",
}
# `dbt deps` writes it, when it is installed
_LATER = "transform/package-lock.yml"


def make(directory: Path, *, wheels: Path | None = None) -> Project:
    """Make a project in a new or empty directory, and return it. Nothing is installed: `make setup` does that.

    Args:
        wheels: the directory of the release's wheels; by default, the one that this program was installed from.

    Raises:
        UsageError: the directory has files, or a wheel is missing.
    """
    root = directory.resolve()
    _refuse_others(root)
    version = metadata.version("tidemark")
    packages = _wheels(wheels or _installed_from(), version)
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / definitions.WHEELHOUSE).mkdir()
        for wheel in packages:
            shutil.copy(wheel, root / definitions.WHEELHOUSE)
        for name, text in _users_files(root.name):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        (root / write.VERSION_FILE).write_text(f"{version}\n", encoding="utf-8")
        write.write(root)
    except OSError as error:
        raise UsageError(f"{root} can't be written: {error.filename}: {error.strerror}.") from None
    project = Project(root)
    demo_files.remove(project)
    return project


def _refuse_others(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file; name a directory.")
    # of an empty repository
    if there := sorted(each.name for each in root.glob("*") if each.name != ".git"):
        raise UsageError(f"{root} has files already, such as {there[0]}; name a directory that is new or empty.")
    for parent in root.parents:
        if (parent / "meltano.yml").exists():
            raise UsageError(f"{root} is inside of the project {parent}; name a directory outside of it.")


def _wheels(directory: Path | None, version: str) -> list[Path]:
    how = (
        "name the directory of the release's wheels: `--wheels DIR` (in a clone, `make wheels` builds them into dist/)"
    )
    if directory is None:
        raise UsageError(f"This program was not installed from a wheel; {how}.")
    found = [directory / definitions.wheel(package, version) for package in definitions.DISTRIBUTIONS]
    for wheel in found:
        if not wheel.is_file():
            raise UsageError(f"{directory} has no {wheel.name}; {how}.")
    return found


def _installed_from() -> Path | None:
    """Return the directory of the wheel that this program was installed from, as pip and uv record it."""
    recorded = metadata.distribution("tidemark").read_text("direct_url.json")
    url = urlsplit(json.loads(recorded)["url"]) if recorded else None
    path = Path(unquote(url.path)) if url and url.scheme == "file" else None
    return path.parent if path and path.suffix == ".whl" else None


def _users_files(name: str) -> Iterator[tuple[str, str]]:
    """Yield the files of the user's, with the demo still in them."""
    project = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "project"
    as_cloned = contents.root() / "demo" / "project"
    for path, file in _files(as_cloned):
        text = file.read_text(encoding="utf-8")
        if path == "meltano.yml":
            text = text.replace("project_id: tidemark\n", f"project_id: {project}\n")
        if path != _LATER:
            yield path, text
    for path in contents.BEGUN_WITH:
        yield path, (contents.root() / path).read_text(encoding="utf-8")
    templates = resources.files("tidemark.release") / "new_project"
    for template, path in _TEMPLATES.items():
        yield path, (templates / template).read_text(encoding="utf-8").replace("{name}", name)


def _files(directory: Traversable, parent: str = "") -> Iterator[tuple[str, Traversable]]:
    for each in directory.iterdir():
        if each.is_dir():
            yield from _files(each, f"{parent}{each.name}/")
        else:
            yield f"{parent}{each.name}", each
