"""Looks up the advisories of every package that is pinned in plugins/requirements, for all Pythons and platforms.

    python .ci/advisories.py [--required] [--service URL]

Ends with 1 and a table if there are some. Where the service can't be reached, one line says so, and the status is 0:
nobody without a network is held up. With --required it is 1, as in CI, where silence would look like health.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "plugins" / "requirements"
# pip-audit's own would be PyPI's, which mirrors of it lack: there it finds no package, and so nothing wrong
SERVICE = "https://api.osv.dev/v1/query"
_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)
# what pip-audit ends with if it is not the pins: no network, a proxy's refusal, a service that is unwell
_UNREACHABLE = re.compile(r"^(requests\.exceptions\.|pip_audit\._service\.|.*Could not connect)", re.MULTILINE)


def pins() -> list[list[str]]:
    """Return all pins, in as few lists as no package is twice in: tap and target pin different versions of some."""
    versions: dict[str, set[str]] = {}
    for path in REQUIREMENTS.glob("*.txt"):
        for name, version in _PIN.findall(path.read_text()):
            versions.setdefault(name, set()).add(version)
    lists: list[list[str]] = []
    for name, found in sorted(versions.items()):
        for number, version in enumerate(sorted(found)):
            if number == len(lists):
                lists.append([])
            lists[number].append(f"{name}=={version}")
    return lists


def audit(packages: list[str], service: str) -> subprocess.CompletedProcess[str]:
    """Have pip-audit look these up; nothing is downloaded or installed."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(packages))
        file.flush()
        program = Path(sys.executable).with_name("pip-audit")
        options = ["--disable-pip", "--no-deps", "--progress-spinner=off", "--timeout=10", "--desc=off"]
        command = [str(program), *options, "--vulnerability-service=osv", f"--osv-url={service}", "-r", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def main() -> int:
    """Return the status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--required", action="store_true", help="fail where the service can't be reached")
    parser.add_argument("--service", default=SERVICE, help="one that answers as OSV does (default: %(default)s)")
    arguments = parser.parse_args()
    status = count = 0
    for packages in pins():
        done = audit(packages, arguments.service)
        if done.returncode and not done.stdout:
            reason = next(reversed(done.stderr.strip().splitlines()), "pip-audit said nothing")
            if not _UNREACHABLE.search(done.stderr):
                sys.exit(f"error: pip-audit failed: {reason}")
            kind = reason.partition(":")[0].rpartition(".")[2]
            print(f"Advisories were not looked up: {arguments.service} can't be reached ({kind}).")
            return int(arguments.required)
        print(done.stdout, end="")
        status |= done.returncode
        count += len(packages)
    if status:
        print(
            "error: take the versions above that mend it: `make requirements UPGRADE=1`, or name one in "
            "plugins/requirements/*.in.",
            file=sys.stderr,
        )
    else:
        print(f"No advisory for {count} pinned packages.")
    return status


if __name__ == "__main__":
    sys.exit(main())
