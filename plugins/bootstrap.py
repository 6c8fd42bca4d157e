"""Creates the project's environments: .venv for Meltano and the tidemark utility, and one below .meltano/ per plugin.

Runs before anything is installed, so it uses only the standard library. If everything is in place, it ends within a
moment. It rebuilds from nothing what an interrupted run left incomplete.

In a clone, our packages are installed from plugins/, so that an edit needs no set-up. A project of `tidemark init` has
wheels of them in wheelhouse/, and a version in .tidemark-version. If that is not the one of the last set-up, its wheel
first writes the generated files, this one among them.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "plugins" / "requirements"
VENV = ROOT / ".venv"
# what the plugins' own tests need; beside their environments and not in them, because those hold exactly what runs
TEST_TOOLS = VENV / "singer-test"
LOG = ROOT / "logs" / "setup.log"
# of a project that `tidemark init` made; a clone has neither
VERSION = ROOT / ".tidemark-version"
WHEELHOUSE = ROOT / "wheelhouse"
# by directory in plugins/ and by wheel: the utility, and the code of tap and target without the SDK, because
# `tidemark reconcile` reads and writes as they do
OURS = {"singer-postgres": "tidemark_singer_postgres-", "tidemark": "tidemark-"}
# named after their pins; Airflow, the largest, is installed only where it is asked for
PLUGINS = ["tap-postgres", "target-postgres", "dbt-postgres"]
# what is in .venv: each has all of the one before it
KINDS = ("project", "lint", "dev")
# dbt-core 1.11 does not run on 3.14
OLDEST, TOO_NEW = (3, 11), (3, 14)
# an environment's scripts contain its path, and its packages fit one Python version: if either changes, rebuild it
HERE = "{} {}.{}".format(ROOT, *sys.version_info[:2])


class SetupError(Exception):
    """What went wrong and what to do, in one line."""


def main():
    parser = argparse.ArgumentParser(description="Install what the project needs.")
    parser.add_argument("--lint", action="store_true", help="also install what `make lint` needs")
    parser.add_argument("--dev", action="store_true", help="also install what developers of Tidemark need")
    parser.add_argument("--airflow", action="store_true", help="also install Airflow")
    arguments = parser.parse_args()
    if not OLDEST <= sys.version_info[:2] < TOO_NEW:
        raise SetupError(
            "this needs Python 3.11, 3.12 or 3.13; {} is {}.{}; name another: `make setup PYTHON=python3.12`.".format(
                sys.executable, *sys.version_info[:2]
            )
        )
    with locked():
        if VERSION.exists():
            generated_files()
        # a clone's linters are among what its developers need
        kind = "dev" if arguments.dev or (arguments.lint and not VERSION.exists()) else "lint" * arguments.lint
        made = environment(kind or "project") | plugins("the tap, the target and dbt", PLUGINS)
        if arguments.airflow or arguments.dev:
            made |= plugins("Airflow", ["airflow"])
        made |= dbt_packages()
    if made:
        print("Everything is installed.")


class locked:
    """Allows one set-up at a time: two would write into each other's environments."""

    def __enter__(self):
        (ROOT / ".tidemark").mkdir(exist_ok=True)
        self.file = open(ROOT / ".tidemark" / "setup.lock", "w")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another set-up of this project to end …", flush=True)
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


def wheels():
    """Return the wheels of the version that the project asks for; none in a clone.

    Raises:
        SetupError: they are not there.
    """
    if not VERSION.exists():
        return []
    version = VERSION.read_text().strip()
    found = sorted(WHEELHOUSE.glob(f"*-{version}-py3-none-any.whl"))
    if not [each for each in found if each.name.startswith("tidemark-")]:
        there = sorted(each.name.split("-")[1] for each in WHEELHOUSE.glob("tidemark-*.whl"))
        raise SetupError(
            f"{VERSION.name} asks for version {version!r}, and wheelhouse/ has {', '.join(there) or 'no wheel'}; copy "
            "the release's wheels there, or correct the version."
        )
    return found


def generated_files():
    """Have the wheel write plugin definitions, pins and this file, if it is another one than at the last set-up.

    Raises:
        SetupError: see `wheels`, or a file can't be written.
    """
    (wheel,) = (each for each in wheels() if each.name.startswith("tidemark-"))
    stamp = Stamp(ROOT / ".meltano" / ".tidemark-setup-files")
    wanted = stamp.wanted("files", [wheel])
    if stamp.text() == wanted:
        return
    # Python imports from a wheel as it is
    said = run(sys.executable, "-m", "tidemark.release", ROOT, PYTHONPATH=wheel).splitlines()
    stamp.write(wanted)
    # sentences, and paths, in which ours have no space
    notes = [line for line in said if " " in line]
    written = [line for line in said if line not in notes]
    for line in notes:
        print(line, flush=True)
    if written:
        print(
            f"Tidemark {VERSION.read_text().strip()} wrote its files ({len(written)} changed); commit them.", flush=True
        )
    if "plugins/bootstrap.py" in written:
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606


def environment(kind):
    """Make .venv; return whether there was anything to do. Once installed, linters and a developer's tools stay.

    Args:
        kind: the name of the largest file of requirements, one of KINDS.
    """
    stamp = Stamp(VENV / ".tidemark-setup")
    kind = max(kind, stamp.kind() if stamp.kind() in KINDS else kind, key=KINDS.index)
    files = [REQUIREMENTS / f"{name}.txt" for name in dict.fromkeys(["project", kind])]
    tools = [REQUIREMENTS / f"{TEST_TOOLS.name}.txt"] * (kind == "dev")
    wanted = stamp.wanted(
        kind,
        [*files, *tools, *sorted((ROOT / "plugins").glob("*/pyproject.toml")), *wheels()],
    )
    usable = os.access(VENV / "bin" / "python", os.X_OK) and stamp.place() == HERE
    if usable and stamp.text() == wanted:
        return False
    stamp.remove()
    with step("Installing Meltano and the tidemark utility"):
        if not usable:
            make_venv()
        uv = [VENV / "bin" / "uv", "pip"]
        run(*uv, "sync", "--quiet", "--require-hashes", *files)
        ours = [each for each in wheels() if each.name.startswith(tuple(OURS.values()))]
        ours = ours or [word for plugin in OURS for word in ("-e", ROOT / "plugins" / plugin)]
        run(*uv, "install", "--quiet", "--no-deps", "--no-build-isolation", *ours)
        if VERSION.exists():
            # what stays in the installed package, such as dbt packages
            run(VENV / "bin" / "python", "-m", "tidemark.release", "--link", ROOT)
        for file in tools:
            shutil.rmtree(TEST_TOOLS, ignore_errors=True)
            run(*uv, "install", "--quiet", "--target", TEST_TOOLS, "--require-hashes", "-r", file)
    stamp.write(wanted)
    return True


def make_venv():
    """Make an empty .venv with uv: with the uv on PATH, or else with Python's own venv and pip."""
    # if this runs in the .venv that it rebuilds, use the Python that created it
    python = getattr(sys, "_base_executable", sys.executable)
    if found := shutil.which("uv"):
        run(found, "venv", "--quiet", "--clear", "--python", python, VENV)
        run(found, "pip", "install", "--quiet", "--require-hashes", "-r", REQUIREMENTS / "uv.txt")
        return
    try:
        run(python, "-m", "venv", "--clear", VENV)
    except SetupError:
        raise SetupError(
            f"{python} can't make virtual environments; install its venv module (Debian and Ubuntu: "
            f"`sudo apt-get install python3-venv`) or uv, then run this again. See {LOG}."
        ) from None
    run(VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", REQUIREMENTS / "uv.txt")


def plugins(what, names):
    """Make the environments of these Meltano plugins; return whether there was anything to do."""
    # only what is installed counts, not the configuration: editing a stream needs no set-up
    locks = [path for name in names for path in sorted(ROOT.glob(f"plugins/*/{name}--*.lock"))]
    # once each: the variants of a plugin share its environment
    urls = list(dict.fromkeys(map(pip_url, locks)))
    pins = [REQUIREMENTS / f"{name}.txt" for name in [*names, "build"]]
    stamp = Stamp(ROOT / ".meltano" / f".tidemark-setup-{names[0]}")
    ours = [*sorted((ROOT / "plugins").glob("*/pyproject.toml")), *wheels()]
    wanted = stamp.wanted("plugins", [*pins, *ours], *urls)
    there = all(list(ROOT.glob(f".meltano/*/{name}/venv/bin/python")) for name in names)
    if there and stamp.text() == wanted:
        return False
    stamp.remove()
    with step(f"Installing {what}"):
        # --clean: Meltano compares the name of a requirements file, not its content
        run(VENV / "bin" / "meltano", "install", "--clean", *names)
        # in a clone, our own packages run from the source tree, and nothing else compiles them
        if sources := sorted((ROOT / "plugins").glob("*/src")):
            run(VENV / "bin" / "python", "-m", "compileall", "-q", *sources)
        # Meltano writes each plugin's settings there at each run, including passwords
        (ROOT / ".meltano" / "run").mkdir(exist_ok=True)
        (ROOT / ".meltano" / "run").chmod(0o700)
    stamp.write(wanted)
    return True


def dbt_packages():
    """Install the dbt packages that transform/packages.yml lists; return whether there was anything to do."""
    project = ROOT / "transform"
    # an image gets its environments before the project's files
    if not (project / "packages.yml").exists():
        return False
    stamp = Stamp(ROOT / ".meltano" / ".tidemark-setup-dbt-packages")

    def wanted():
        return stamp.wanted("packages", sorted(project.glob("package*.yml")))

    if (project / "dbt_packages").exists() and stamp.text() == wanted():
        return False
    stamp.remove()
    with step("Installing dbt's packages"):
        dbt = ROOT / ".meltano" / "utilities" / "dbt-postgres" / "venv" / "bin" / "dbt"
        run(dbt, "deps", "--project-dir", project, "--log-path", LOG.parent)
    # read again: dbt updates package-lock.yml if packages.yml changed
    stamp.write(wanted())
    return True


def pip_url(path):
    """Return what Meltano installs for a plugin, from its lock file.

    Raises:
        SetupError: it can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))["pip_url"]
    except (KeyError, TypeError, ValueError) as error:
        raise SetupError(f"{path} does not define a plugin ({error}); restore it.") from None


class Stamp:
    """A file that says what an environment was made from: kind, place, hash. It is missing while that is being made."""

    def __init__(self, path):
        self.path = path

    @staticmethod
    def wanted(kind, files, *texts):
        digest = hashlib.sha256("\n".join(texts).encode())
        for file in files:
            digest.update(file.read_bytes())
        return f"{kind}\n{HERE}\n{digest.hexdigest()}"

    def text(self):
        return self.path.read_text() if self.path.exists() else ""

    def kind(self):
        return self.text().split("\n")[0]

    def place(self):
        return "".join(self.text().split("\n")[1:2])

    def remove(self):
        self.path.unlink(missing_ok=True)

    def write(self, wanted):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(wanted)


class step:
    """Shows what is going on: on a terminal with a ticking clock, elsewhere in plain lines."""

    def __init__(self, what):
        self.what = what
        self.done = threading.Event()
        self.clock = threading.Thread(target=self.tick, daemon=True)

    def seconds(self):
        return f"{time.monotonic() - self.began:.0f} s"

    def tick(self):
        while not self.done.wait(1):
            print(f"\r{self.what} … {self.seconds()}", end="", flush=True)

    def __enter__(self):
        self.began = time.monotonic()
        if sys.stdout.isatty():
            print(f"{self.what} …", end="", flush=True)
            self.clock.start()
        else:
            print(f"{self.what} …", flush=True)

    def __exit__(self, kind, *_):
        self.done.set()
        if self.clock.is_alive():
            self.clock.join()
        if sys.stdout.isatty():
            print("\r\033[K", end="")
        if kind is None:
            print(f"{self.what}: {self.seconds()}", flush=True)


def run(*command, **variables):
    """Run a command, with these environment variables, and write its output to the log. Return the output.

    Raises:
        SetupError: it failed.
    """
    LOG.parent.mkdir(exist_ok=True)
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV), "UV_COMPILE_BYTECODE": "1", "NO_COLOR": "1"}
    # without bytecode, each start of Meltano, a tap or dbt takes 2 to 3 s longer
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.update({name: str(value) for name, value in variables.items()})
    words = [str(word) for word in command]
    with LOG.open("a") as log:
        log.write("$ {}\n".format(" ".join(words)))
        log.flush()
        start = log.tell()
        status = subprocess.call(words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    said = LOG.read_bytes()[start:].decode(errors="replace").strip()
    if status:
        lines = said.splitlines() or ["it said nothing"]
        reason = next((line.strip() for line in lines if "rror" in line), lines[-1])
        raise SetupError(f"{Path(words[0]).name} failed: {reason}; its whole output is in {LOG}.")
    return said


if __name__ == "__main__":
    try:
        main()
    except SetupError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}; does it belong to another user, or is the disk full?")
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again; it restarts what it had not finished.", file=sys.stderr)
        sys.exit(130)
