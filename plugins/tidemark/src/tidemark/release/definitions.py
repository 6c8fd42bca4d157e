"""Generates Meltano's definitions of the plugins: the lock files below plugins/, which nobody edits by hand.

Meltano reads them from the project alone. Those of a clone and of a project that `tidemark init` made differ only in
where our packages are installed from. `make definitions` writes those of the clone.

Tap and target share their settings with the code: settings/ has them, as `make definitions` reads them from the code.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# by directory in plugins/, as the wheels are named
DISTRIBUTIONS = {
    "tidemark": "tidemark",
    "singer-postgres": "tidemark_singer_postgres",
    "tidemark-dbt": "tidemark_dbt",
    "tidemark-airflow": "tidemark_airflow",
}
WHEELHOUSE = "wheelhouse"
_PINS = "plugins/requirements"
_VARIANT = "tidemark"
_ROOT = "$MELTANO_PROJECT_ROOT"
# the fast way between tap and target
_TAP = {"use_copy": True, "chunk_dir": f"{_ROOT}/.tidemark/chunks", "user": "tidemark_reader"}
# By variant. `tidemark` reads the first source and has the embedded server's address as its defaults. `bare` is for all
# further sources and has none of them, so that a source without an address reads no other one's database.
_TAP_VALUES: dict[str, dict[str, Any]] = {
    _VARIANT: _TAP | {"host": "127.0.0.1", "port": 5433, "database": "shop", "filter_schemas": ["public"]},
    "bare": _TAP | {"port": 5432},
}
_TARGET_VALUES: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 5434,
    "user": "tidemark_loader",
    "database": "warehouse",
    "default_target_schema": "raw",
    "add_record_metadata": True,
    # incremental models find a marked row by the transaction that marked it, and a deleted one not at all
    "hard_delete": False,
    "run_id": "$TIDEMARK_RUN_ID",
}
_DBT_SETTINGS = (
    ("project_dir", f"{_ROOT}/transform", "Where dbt_project.yml is."),
    ("profiles_dir", f"{_ROOT}/transform/profiles", "Where profiles.yml is."),
    ("target_path", f"{_ROOT}/.meltano/dbt/target", "Where dbt writes what it compiles and its documentation."),
    ("good_run_path", f"{_ROOT}/.meltano/dbt/good", "Where the manifest of the last successful whole run is kept."),
    (
        "schema_prefix",
        None,
        "A prefix of the schema names, so that a developer or a CI run has separate schemas.",
    ),
    ("log_path", f"{_ROOT}/logs", "Where dbt writes its own log, dbt.log."),
)
_BUILD = "build --resource-type model --resource-type snapshot --resource-type seed"
_DBT_COMMANDS = {
    "run": (
        _BUILD,
        (
            "Build seeds, models and snapshots, in the order of the graph: `dbt build` without the tests, because "
            "`dbt run` skips snapshots and seeds."
        ),
    ),
    "test": ("test", "Run the data tests and unit tests."),
    "changed": (
        "build --select state:modified+ --defer --state $DBT_GOOD_RUN_PATH",
        "Build and test what changed since the last good run, and everything below it.",
    ),
    "touched": (
        f"{_BUILD} --select $DBT_TOUCHED",
        (
            "Build the models, snapshots and seeds that DBT_TOUCHED selects, such as source:raw.orders+. For Meltano "
            "the selection is one word; dbt splits it at its spaces."
        ),
    ),
    "touched-test": ("test --select $DBT_TOUCHED", "Run the tests of what DBT_TOUCHED selects."),
    "build": ("build", "Build and test everything, in the order of the graph."),
    "freshness": ("source freshness", "Check the age of the raw tables."),
    "docs": ("docs generate", "Write the documentation site."),
    "docs-serve": ("docs serve --host 127.0.0.1 --port 8081", "Serve the documentation site."),
    "snapshot": ("snapshot", "Build only the snapshots."),
    "compile": ("compile", "Render the SQL of every model."),
    "debug": ("debug", "Show the connection and test it."),
    "clean": ("clean", "Remove dbt's generated files."),
    "list": ("list", "List the project's nodes."),
}
_AIRFLOW_COMMANDS = {
    "serve": ("serve", "Run all of Airflow on this machine."),
    "prepare": ("prepare", "Update the metadata's tables and the pools."),
    "dags": ("dags list", "List the DAGs of the schedules."),
}
_TIDEMARK_COMMANDS = {
    "reconcile": ("reconcile", "Compare source and warehouse row by row; change nothing."),
    "backup": ("backup", "Back up the warehouse, the state and Airflow's metadata to TIDEMARK_BACKUP_TO."),
    "drill": ("backup drill", "Restore the latest backup into a separate server, and run from there."),
    "check": ("check", "List what either database lacks for a run."),
    "slots": (
        "slots enforce",
        "Fail if a source keeps more WAL than max_slot_wal_mb; drop the slot if max_slot_wal_action says so.",
    ),
}


def from_source(package: str, extra: str = "") -> str:
    """Return the requirement of a package of ours in a clone: its directory, whose edits need no installation."""
    return f"-e plugins/{package}{extra}"


def from_wheels(version: str) -> Callable[..., str]:
    """Return what names a package's requirement in a project whose wheelhouse/ has the wheels of this version.

    It is the file's path, and not the package's name: an index may have another package of that name.
    """
    return lambda package, extra="": f"{WHEELHOUSE}/{wheel(package, version)}{extra}"


def wheel(package: str, version: str) -> str:
    """Return the name of a package's wheel."""
    return f"{DISTRIBUTIONS[package]}-{version}-py3-none-any.whl"


def lock_files(requirement: Callable[..., str]) -> dict[str, str]:
    """Return the text of each lock file, by its path in the project.

    Args:
        requirement: `from_source`, or what `from_wheels` returns.
    """

    def pip_url(pins: str, *packages: tuple[str, str]) -> str:
        ours = [requirement(*package) for package in packages]
        # only what is built needs the pins of the build backend
        build = [f"-b {_PINS}/build.txt"] if any(each.startswith("-e ") for each in ours) else []
        return " ".join([f"-r {_PINS}/{pins}.txt", *build, *ours])

    dbt_settings = [
        _without_empty({"name": name, "env": f"DBT_{name.upper()}", "value": value, "description": description})
        for name, value, description in _DBT_SETTINGS
    ]
    plugins = [
        *(
            _plugin("extractors", "tap-postgres", variant)
            | {
                "label": "PostgreSQL",
                "pip_url": pip_url("tap-postgres", ("singer-postgres", "[tap]")),
                "executable": "tidemark-tap-postgres",
                "capabilities": ["catalog", "discover", "state", "structured-logging"],
                "use_cached_catalog": False,
                "settings": _settings("tap-postgres", values),
            }
            for variant, values in _TAP_VALUES.items()
        ),
        _plugin("loaders", "target-postgres")
        | {
            "label": "PostgreSQL",
            "pip_url": pip_url("target-postgres", ("singer-postgres", "[target]")),
            "executable": "tidemark-target-postgres",
            "capabilities": ["structured-logging", "target-schema"],
            "settings": _settings("target-postgres", _TARGET_VALUES),
        },
        _plugin("utilities", "airflow")
        | {
            "label": "Airflow",
            "pip_url": pip_url("airflow", ("tidemark-airflow", "")),
            "executable": "tidemark-airflow",
            "commands": _commands(_AIRFLOW_COMMANDS),
            "description": "Airflow's own command line with this project's settings, from orchestrate/airflow.env and "
            ".env.",
        },
        _plugin("utilities", "dbt-postgres")
        | {
            "label": "dbt for PostgreSQL",
            "pip_url": pip_url("dbt-postgres", ("tidemark-dbt", ""), ("singer-postgres", "")),
            "executable": "tidemark-dbt",
            "settings": dbt_settings,
            "commands": _commands(_DBT_COMMANDS),
            "description": "dbt, one run at a time per warehouse.",
        },
        _plugin("utilities", "tidemark")
        | {
            "label": "Tidemark",
            "executable": ".venv/bin/tidemark",
            "commands": _commands(_TIDEMARK_COMMANDS),
            "description": "The tidemark command. It is installed in the project's own environment beside Meltano, so "
            "it needs no pip_url.",
        },
    ]
    # in ASCII: Meltano reads them in the encoding of the locale
    return {
        f"plugins/{each['plugin_type']}/{each['name']}--{each['variant']}.lock": json.dumps(each, indent=2) + "\n"
        for each in plugins
    }


def _plugin(kind: str, name: str, variant: str = _VARIANT) -> dict[str, Any]:
    return {"plugin_type": kind, "name": name, "namespace": name.replace("-", "_"), "variant": variant}


def _commands(commands: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    return {name: {"args": args, "description": description} for name, (args, description) in commands.items()}


def _settings(plugin: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the plugin's settings with a project's defaults in place of the code's."""
    path = resources.files(__package__) / "settings" / f"{plugin}.json"
    order = ("name", "label", "kind", "description", "value", "sensitive")
    settings = json.loads(path.read_text(encoding="utf-8"))
    ours = [each | {"value": values.get(each["name"], each.get("value"))} for each in settings]
    return [_without_empty({key: each.get(key) for key in order}) for each in ours]


def _without_empty(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in setting.items() if value is not None}
