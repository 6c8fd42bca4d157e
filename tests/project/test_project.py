"""The project's files agree: what one file names, another has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml
from dotenv import dotenv_values

from tests.conftest import AS_CLONED, REPOSITORY
from tidemark.cli.app import app
from tidemark.project import dotenv_file
from tidemark.project.new_source import NewSource

FILES = [
    REPOSITORY / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if (REPOSITORY / name).is_file()
]
MELTANO = yaml.safe_load((AS_CLONED / "meltano.yml").read_text())
LOCKS = [json.loads(path.read_text()) for path in REPOSITORY.glob("plugins/*/*--tidemark.lock")]
DEFINITIONS = {lock["name"]: lock for lock in LOCKS}
REQUIREMENTS = REPOSITORY / "plugins" / "requirements"
MAKEFILE = "".join((REPOSITORY / name).read_text() for name in ("Makefile", "plugins/project.mk"))
AIRFLOW_PYTHON = REPOSITORY / ".meltano" / "utilities" / "airflow" / "venv" / "bin" / "python"
# Airflow's own description of its options, read without importing Airflow, which would create files
OPTIONS = """
import importlib.util, pathlib, yaml
root = pathlib.Path(importlib.util.find_spec("airflow").submodule_search_locations[0])
for file in root.rglob("config.yml"):
    for section, content in yaml.safe_load(file.read_text()).items():
        for option in content["options"]:
            print(f"AIRFLOW__{section}__{option}".upper())
"""


def test_the_root_file_holds_only_the_projects_identity():
    assert set(MELTANO) == {
        *("project_id", "requires_meltano", "send_anonymous_usage_stats", "cli", "hub_url"),
        *("default_environment", "environments", "include_paths"),
    }
    assert MELTANO["send_anonymous_usage_stats"] is False


@pytest.mark.parametrize("name", sorted(name for name in DEFINITIONS if "pip_url" in DEFINITIONS[name]))
def test_a_plugin_installs_from_hashed_pins(name):
    words = DEFINITIONS[name]["pip_url"].split()
    options = dict(zip(words[::2], words[1::2], strict=True))
    # our own packages come from this repository, built with the pins in build.txt
    own = options.pop("-e", "plugins/singer-postgres").partition("[")[0]
    assert (REPOSITORY / own / "pyproject.toml").is_file()
    assert set(options) <= {"-r", "-b"}
    for pins in (REPOSITORY / path for path in options.values()):
        assert pins.parent == REQUIREMENTS
        packages = [line for line in pins.read_text().splitlines() if line[:1].isalnum()]
        assert packages
        assert all("==" in line for line in packages)
        assert pins.read_text().count("--hash=sha256:") >= len(packages)


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.in")), ids=lambda path: path.stem)
def test_compiled_requirements_match_their_source(path):
    compiled = path.with_suffix(".txt").read_text()
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "-c", "-r")):
            name = re.sub(r"\[.*?\]| *;.*", "", line)
            assert re.search(rf"^{re.escape(name)}(==| |$)", compiled, re.MULTILINE), name


def test_every_setting_in_airflows_file_exists():
    # an unknown option would have no effect
    known = subprocess.run([AIRFLOW_PYTHON, "-c", OPTIONS], capture_output=True, text=True, check=True).stdout.split()
    lines = (REPOSITORY / "orchestrate" / "airflow.env").read_text().splitlines()
    names = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert names
    assert set(names) <= set(known)


def test_every_dag_setting_is_in_the_example():
    settings = (REPOSITORY / "plugins/tidemark-airflow/src/tidemark_airflow/settings.py").read_text()
    names = re.findall(r"^    (\w+): (?:str|int|float) = ", settings, re.MULTILINE)
    example = (REPOSITORY / ".env.example").read_text()
    assert names
    assert re.findall(r"^#TIDEMARK_DAG_(\w+)=", example, re.MULTILINE) == [name.upper() for name in names]


def test_every_connection_variable_is_in_the_example():
    example = (REPOSITORY / ".env.example").read_text()
    connection = {"host", "port", "user", "password", "database", "filter_schemas", "default_target_schema"}
    connection |= {"ssl_enable", "ssl_mode", "ssl_certificate_authority"}
    for plugin in ("tap-postgres", "target-postgres"):
        for setting in DEFINITIONS[plugin]["settings"]:
            if setting["name"] in connection:
                assert f"{DEFINITIONS[plugin]['namespace'].upper()}_{setting['name'].upper()}=" in example
    profile = (AS_CLONED / "transform" / "profiles" / "profiles.yml").read_text()
    for variable in re.findall(r"env_var\('(\w+)'", profile):
        assert f"{variable}=" in example


def test_the_commands_of_the_pages_exist():
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    readme = "\n".join(page.read_text() for page in pages)
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|`)make (?:--silent )?([a-z][a-z-]+)", readme, re.MULTILINE)) <= targets
    commands = {command.callback.__name__ for command in app.registered_commands}
    commands |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"\.venv/bin/tidemark ([a-z]+)", readme)) <= commands
    for path in re.findall(r"`((?:extract|load|transform|orchestrate|plugins|tests|demo)/[\w./-]*)`", readme):
        assert (REPOSITORY / path).exists(), path


def test_every_make_target_is_explained():
    phony = {name for line in re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE) for name in line.split()}
    explained = set(re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE))
    # targets that only other targets use
    assert phony - explained == {"compose-ready", "python", "setup-lint", "lint-code", "test-code"}
    assert explained <= phony
    shown = subprocess.run(["make", "--silent", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert explained <= set(re.findall(r"^  make ([a-z-]+) ", shown.stdout, re.MULTILINE))


def test_every_make_target_of_the_workflows_and_the_docs_exists():
    there = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    files = [*REPOSITORY.glob(".github/workflows/*.yml"), *REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]
    for file in files:
        asked = set(re.findall(r"(?:^ {4}|`|run: )make (?:--silent )?([a-z-]+)", file.read_text(), re.MULTILINE))
        assert asked <= there, file.name


def test_every_make_target_is_run_on_a_push_or_at_night():
    """A target that nothing runs would rot."""
    explained = set(re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE))
    files = [REPOSITORY / ".ci" / name for name in ("run", "targets")]
    files += [REPOSITORY / ".github" / "workflows" / name for name in ("ci.yml", "nightly.yml", "release.yml")]
    files += [REPOSITORY / ".github" / "actions" / "setup" / "action.yml"]
    # including further targets on the line: `make demo-change pipeline`
    lines = [line for file in files for line in re.findall(r"\bmake (?:--\S+ )?([a-z -]+)", file.read_text())]
    assert explained - {target for line in lines for target in line.split()} == set()


def test_compose_mounts_existing_paths_and_names_every_generated_secret():
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    script = (REPOSITORY / "docker" / "secrets.sh").read_text()
    for name, where in compose["secrets"].items():
        assert where["file"] == f".secrets/{name}"
        assert name.rpartition(".")[0] in script if "." in name else re.search(rf"\b{name}\b", script), name
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (REPOSITORY / source).exists(), (name, source)


def test_compose_gives_services_the_variables_of_further_sources_with_tls_and_not_those_of_this_machines_first(
    tmp_path,
):
    (tmp_path / "docker").mkdir()
    script = shutil.copy(REPOSITORY / "docker" / "secrets.sh", tmp_path / "docker")
    new = NewSource("crm", "raw_crm", {"HOST": "crm.example.com", "PASSWORD": "it's $x"})
    dotenv_file.write(
        tmp_path / ".env", {f"{new.prefix}_{end}": value for end, value in new.connection.items()}, instead=""
    )
    with (tmp_path / ".env").open("a") as file:
        file.write(
            "TAP_POSTGRES_PORT=5499\nTAP_POSTGRES_EU_HOST=eu\nexport TAP_POSTGRES_EU_SSL_MODE=require\nOTHER=1\n"
        )
    subprocess.run(["sh", script], check=True, stdout=subprocess.DEVNULL)
    authority = "/run/secrets/ca.crt"
    assert dotenv_values(tmp_path / ".secrets" / "sources.env") == {
        "TAP_CRM_HOST": "crm.example.com",
        "TAP_CRM_PASSWORD": "it's $x",
        "TAP_CRM_SSL_ENABLE": "true",
        "TAP_CRM_SSL_MODE": "verify-full",
        "TAP_CRM_SSL_CERTIFICATE_AUTHORITY": authority,
        "TAP_POSTGRES_EU_HOST": "eu",
        "TAP_POSTGRES_EU_SSL_ENABLE": "true",
        "TAP_POSTGRES_EU_SSL_MODE": "require",
        "TAP_POSTGRES_EU_SSL_CERTIFICATE_AUTHORITY": authority,
    }


def test_every_service_of_compose_is_hardened_and_published_on_this_machine_alone():
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["cpus"], name
        assert service["logging"]["options"]["max-size"], name
        # an image of ours sets its user
        assert "build" in service or service["user"] not in {"root", "0"}, name
        # another image, such as that of a mirror, can be named
        assert re.match(r"\$\{[A-Z_]+:-[\w./-]+", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:${", "${PUBLISH_ON:-127.0.0.1}:")), name
        for variable, value in (service.get("environment") or {}).items():
            # a secret is a file
            assert not re.search(r"PASSWORD$|SECRET$|_KEY$|WEBHOOK_URL$", variable), (name, variable, value)


def test_no_file_names_an_index_a_machine_or_a_password():
    hosts = ["pypi" + ".org", "python" + "hosted.org", "registry.npm" + "js.org", "deb.deb" + "ian.org"]
    places = ["/" + "root/", "/" + "home/"]
    for path in FILES:
        text = path.read_text(errors="ignore")
        for word in hosts + places:
            assert word not in text, f"{path} holds {word}"
        assert not re.search(r"postgresql://\w+:[A-Za-z0-9_-]{16,}@", text), path


def test_git_ignores_what_a_run_writes():
    for name in (".env", ".secrets/x", ".venv/x", ".meltano/x", ".tidemark/x", "logs/meltano.jsonl"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=REPOSITORY, check=False).returncode == 0, name
