"""Looks up advisories for every package pinned in plugins/requirements, for all Python versions and platforms.

    python .ci/advisories.py [--required] [--service URL]

Prints a table and exits with 1 if it finds any. If the service can't be reached, it prints one line and exits with 0,
so that nobody without a network is blocked. With --required it exits with 1 then:
in CI, silence would look like success.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "plugins" / "requirements"
# pip-audit asks PyPI by default. A mirror of PyPI has no advisories, so pip-audit would find no package and no problem.
SERVICE = "https://api.osv.dev/v1/query"
_PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)", re.MULTILINE)
# pip-audit's errors that don't come from the pins: no network, a refusing proxy, a service that is down
_UNREACHABLE = re.compile(r"^(requests\.exceptions\.|pip_audit\._service\.|.*Could not connect)", re.MULTILINE)


def pins() -> list[list[str]]:
    """Return all pins as few lists, without a package twice in one: tap and target pin different versions of some."""
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
    """Have pip-audit look up these packages; it downloads and installs nothing."""
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
    parser.add_argument("--required", action="store_true", help="fail if the service can't be reached")
    parser.add_argument("--service", default=SERVICE, help="a service with OSV's API (default: %(default)s)")
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
            "error: upgrade to a version that fixes it (see above): run `make requirements UPGRADE=1`, or pin one in "
            "plugins/requirements/*.in.",
            file=sys.stderr,
        )
    else:
        print(f"No advisory for {count} pinned packages.")
    return status


if __name__ == "__main__":
    sys.exit(main())
