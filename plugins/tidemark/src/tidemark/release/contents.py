"""Which files of a release a project gets, and where they are: in the wheel, or in the clone that this runs from."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

# what other programs read in the project, and set-up before anything is installed; the project's git has these
WRITTEN = (
    ".env.example",
    "logging.yaml",
    "orchestrate/airflow.env",
    "orchestrate/dags/*.py",
    "plugins/bootstrap.py",
    "plugins/project.mk",
    "plugins/requirements/*.txt",
)
# what only developers of Tidemark install
_OF_DEVELOPERS = ("plugins/requirements/dev.txt", "plugins/requirements/singer-test.txt")
# directories that stay in the installed package; the project has links to them, which its git ignores
LINKED = ("demo", "docs", "monitoring", "transform/packages")
# what a new project begins with, and is the user's from then on: the linters' rules
BEGUN_WITH = (".sqlfluff", ".sqlfluffignore", ".yamllint")
# what else is read of a release
_READ = ("CHANGELOG.md",)
# caches, and dbt's tests of a package
_LEFT_OUT = ("__pycache__", "integration_tests", "dbt_packages", "target", "logs")
_PACKAGED = "files"


def root() -> Traversable:
    """Return the directory of the release's files, laid out as in the repository."""
    packaged = resources.files(__package__) / _PACKAGED
    return packaged if packaged.is_dir() else repository()


def repository() -> Path:
    """Return the clone that this code runs from. It is one only if the files are not packaged."""
    return Path(__file__).parents[5]


def written(at: Traversable) -> Iterator[tuple[str, Traversable]]:
    """Yield each file that is written into a project, with its path there."""
    for pattern in WRITTEN:
        parent = PurePosixPath(pattern).parent
        directory = at.joinpath(*parent.parts) if parent.parts else at
        for file in sorted(directory.iterdir(), key=lambda each: each.name):
            name = (parent / file.name).as_posix()
            if fnmatchcase(name, pattern) and name not in _OF_DEVELOPERS and file.is_file():
                yield name, file


def packaged(repository: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file that a wheel has, with its path below this package."""
    names = [*(name for name, _ in written(repository)), *BEGUN_WITH, *_READ]
    for directory in LINKED:
        for path in sorted((repository / directory).rglob("*")):
            below = path.relative_to(repository)
            if path.is_file() and not {*below.parts} & {*_LEFT_OUT}:
                names.append(below.as_posix())
    for name in names:
        yield repository / name, f"{_PACKAGED}/{name}"
