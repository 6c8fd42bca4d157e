"""Builds the documentation site: `python docs/build_site.py --generator zensical --to site`.

Some pages live beside the code that they describe. All are copied into one directory first, with links between them
corrected, so that either generator builds them and needs no plugin or hook of ours.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# pages of the site that are files elsewhere in the repository, and their pictures
BESIDE_THE_CODE = {
    "plugins/singer-postgres/README.md": "repository/tap-and-target.md",
    "plugins/tidemark-airflow/README.md": "repository/airflow.md",
    "transform/packages/in_place/README.md": "repository/in-place.md",
    "deploy/helm/README.md": "repository/helm.md",
    "bench/results.md": "repository/bench.md",
    "bench/transform.md": "repository/bench-transform.md",
    "bench/cdc.md": "repository/bench-cdc.md",
    "bench/reconcile.md": "repository/bench-reconcile.md",
    "bench/metrics.md": "repository/bench-metrics.md",
    "bench/watched.md": "repository/bench-watched.md",
    "bench/results.svg": "repository/results.svg",
    "CONTRIBUTING.md": "repository/contributing.md",
    "SECURITY.md": "repository/security.md",
    "CHANGELOG.md": "repository/changelog.md",
}
COMMANDS = {
    "mkdocs": ["mkdocs", "build", "--quiet", "--strict"],
    "zensical": ["zensical", "build", "--strict"],
}
# the search of pages that are opened from a disk asks another host for this file; the site has its own copy
_SHIM, _OURS = "https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js"
_KINDS = {".md", ".png", ".svg", ".js", ".css"}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def main() -> int:
    """Build the site, and return the generator's status."""
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("--generator", choices=COMMANDS, default="mkdocs")
    parser.add_argument("--to", type=Path, default=ROOT / "site", help="the directory to write; what is in it goes")
    parser.add_argument("--url", default="", help="where the site will be published")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        gather(work, url=arguments.url)
        done = subprocess.run(
            [sys.executable, "-m", *COMMANDS[arguments.generator]],
            cwd=work,
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.stderr.write(done.stdout)
            return done.returncode
        bring_along(work / "site")
        shutil.rmtree(arguments.to, ignore_errors=True)
        shutil.copytree(work / "site", arguments.to)
    return 0


def gather(work: Path, *, url: str) -> None:
    """Write what a generator reads: mkdocs.yml, and all pages below docs/."""
    address = f"site_url: {url.rstrip('/')}/\n" if url else ""
    (work / "mkdocs.yml").write_text(address + (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), encoding="utf-8")
    found = [path for path in DOCS.rglob("*") if path.suffix in _KINDS]
    pages = {str(path.relative_to(ROOT)): str(path.relative_to(DOCS)) for path in found} | BESIDE_THE_CODE
    for source, page in pages.items():
        to = work / "docs" / page
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.suffix == ".md":
            to.write_text(_linked((ROOT / source).read_text(encoding="utf-8"), source, pages), encoding="utf-8")
        else:
            shutil.copy(ROOT / source, to)


def _linked(markdown: str, source: str, pages: dict[str, str]) -> str:
    """Return a page whose links lead to pages of the site. A link to any other file becomes its text."""

    def corrected(found: re.Match[str]) -> str:
        mark, words, target, anchor = found.groups()
        page = pages.get(os.path.normpath(Path(source).parent / target))
        if page is None:
            return words
        return f"{mark}[{words}]({os.path.relpath(page, Path(pages[source]).parent)}{anchor or ''})"

    return _LINK.sub(corrected, markdown)


def bring_along(site: Path) -> None:
    """Have pages fetch from the site itself what they would fetch from another host."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(_SHIM, os.path.relpath(site / _OURS, page.parent)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
