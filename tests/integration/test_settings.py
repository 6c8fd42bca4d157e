"""Every command finds a setting where Meltano finds it, with the same value: compared with Meltano's own answer."""

from __future__ import annotations

import json

import pytest
import yaml
from meltano.cli.cli import detect_selected_environment
from meltano.core.project import Project as MeltanoProject
from meltano.core.settings_store import SettingValueStore

from tests.conftest import REPOSITORY
from tidemark.inspect.check import servers, streams
from tidemark.inspect.check import settings as check_settings
from tidemark.project import database_settings as settings
from tidemark.project import meltano_project, resolved_settings, sources, variables, yaml_files

# by plugin and setting: a value other than the default, and how tidemark sees it
CONNECTION = {
    "tap-postgres": {
        "host": "source.example",
        "port": "6001",
        "user": "some reader",
        "password": "s3cret",
        "database": "some app",
        "ssl_enable": "yes",
        "ssl_mode": "require",
        "ssl_certificate_authority": "/etc/a ca.pem",
    },
    "target-postgres": {
        "host": "warehouse.example",
        "port": "6002",
        "user": "some loader",
        "password": "s3cret",
        "database": "some warehouse",
        "ssl_enable": "on",
        "ssl_mode": "require",
        "ssl_certificate_authority": "/etc/a ca.pem",
        "default_target_schema": "raw_too",
    },
}
EXTRACTION = {
    "_select": '["public-customers.*"]',
    "_metadata": '{"public-customers": {"replication-method": "FULL_TABLE"}}',
    "filter_schemas": '["other"]',
    "lookback_seconds": "77",
    "timestamp_timezone": "Asia/Tokyo",
    "where": '{"public-customers": "customer_id > 3"}',
    "masks": '{"public-customers": {"email": "redact"}}',
}
STORES = ["process", "dotenv", "environment", "yaml", "database"]


@pytest.fixture
def project(bare_project):
    return bare_project


def put(project, monkeypatch, store: str, plugin: str, values: dict[str, str]) -> None:
    """Put settings into one of the places that Meltano reads."""
    prefix = plugin.upper().replace("-", "_")
    named = {f"{prefix}_{name.upper()}": value for name, value in values.items()}
    if store == "process":
        for name, value in named.items():
            monkeypatch.setenv(name, value)
    elif store == "dotenv":
        project.dotenv.write_text("".join(f"{name}='{value}'\n" for name, value in named.items()))
    elif store == "environment":
        path = project.root / "meltano.yml"
        kind = "extractors" if plugin.startswith("tap") else "loaders"
        content = yaml.safe_load(path.read_text())
        extras = {name[1:]: json.loads(value) for name, value in values.items() if name.startswith("_")}
        config = {name: json_of(value) for name, value in values.items() if not name.startswith("_")}
        content["environments"][0]["config"] = {"plugins": {kind: [{"name": plugin, "config": config, **extras}]}}
        path.write_text(yaml.safe_dump(content))
    elif store in {"yaml", "variables"}:
        path = next(project.root.glob(f"{'extract' if plugin.startswith('tap') else 'load'}/*.yml"))
        content = yaml.safe_load(path.read_text())
        (entry,) = next(iter(content["plugins"].values()))
        if store == "variables":
            entry["env"] = named
        else:
            entry["config"] = {name: json_of(value) for name, value in values.items() if not name.startswith("_")}
            entry |= {name[1:]: json.loads(value) for name, value in values.items() if name.startswith("_")}
        path.write_text(yaml.safe_dump(content))
    else:
        meltano = meltano_project.find(project)
        _, service = meltano_project.plugin(meltano, plugin)
        with meltano_project.database(meltano) as session:
            for name, value in values.items():
                service.set(name, json_of(value), store=SettingValueStore.DB, session=session)


def json_of(value: str):
    """Decode a JSON value, as a user would write it in YAML."""
    return json.loads(value) if value[0] in "[{" else value


def of_meltano(project, plugin: str) -> dict:
    """Return the settings that Meltano itself gives the plugin."""
    meltano = meltano_project.find(project)
    found, service = meltano_project.plugin(meltano, plugin)
    with meltano_project.database(meltano) as session:
        values = found.process_config(service.as_dict(extras=False, session=session))
        extras = ("_select", "_metadata") if plugin.startswith("tap") else ()
        return values | {name: service.get(name, session=session) for name in extras}


@pytest.mark.parametrize("store", [*STORES, "variables"])
@pytest.mark.parametrize("plugin", CONNECTION)
def test_connections_are_found_wherever_meltano_finds_them(project, monkeypatch, plugin, store):
    put(project, monkeypatch, store, plugin, CONNECTION[plugin])
    side = settings.read(project)[0 if plugin.startswith("tap") else 1]
    assert not side.embedded
    meltano = of_meltano(project, plugin)
    seen = side.model_dump()
    seen["password"] = side.password.get_secret_value()
    assert seen == {name: meltano[name] for name in seen}
    assert seen["host"] == CONNECTION[plugin]["host"]
    # commands that start other programs pass everything on
    told = side.variables()
    prefix = plugin.upper().replace("-", "_")
    assert {f"{prefix}_{name.upper()}" for name in CONNECTION[plugin]} == told.keys()


@pytest.mark.parametrize("store", STORES)
def test_the_tables_to_read_are_found_wherever_meltano_finds_them(project, monkeypatch, store):
    put(project, monkeypatch, store, "tap-postgres", EXTRACTION)
    found = streams.configuration(project, sources.find(project, "postgres"))
    meltano = of_meltano(project, "tap-postgres")
    assert (found.select, found.metadata) == (tuple(meltano["_select"]), meltano["_metadata"])
    # the project's YAML has these, and it overrides the database
    assert (found.select == ("public-customers.*",)) is (store != "database")
    assert found.schemas == {"other"} == {*meltano["filter_schemas"]}
    assert found.lookback_seconds == meltano["lookback_seconds"] == 77
    assert found.timestamp_timezone == meltano["timestamp_timezone"] == "Asia/Tokyo"
    assert found.where == {"public-customers": ["customer_id > 3"]}
    assert found.masks == meltano["masks"] == {"public-customers": {"email": "redact"}}


def test_settings_have_the_same_precedence_as_in_meltano(project, monkeypatch):
    for number, store in enumerate(reversed(STORES), 1):
        put(project, monkeypatch, store, "target-postgres", {"host": f"{store}.example", "port": f"{7000 + number}"})
        _, warehouse = settings.read(project)
        meltano = of_meltano(project, "target-postgres")
        assert (warehouse.host, warehouse.port) == (meltano["host"], meltano["port"])
        assert (warehouse.host, warehouse.port) == (f"{store}.example", 7000 + number)


def test_check_says_which_settings_of_the_target_dbt_does_not_see(project, monkeypatch):
    names = ["host", "port"]
    assert resolved_settings.beyond_variables(project, "target-postgres", names) == []
    put(project, monkeypatch, "yaml", "target-postgres", {"host": "yaml.example", "port": "7000"})
    put(project, monkeypatch, "dotenv", "target-postgres", {"port": "7001"})
    (unseen,) = servers.unseen(resolved_settings.beyond_variables(project, "target-postgres", names))
    assert unseen.what.startswith("TARGET_POSTGRES_HOST: set in YAML")


def test_check_refuses_an_unknown_key_under_config_and_names_the_nearest_setting(project):
    for kind in ("extractors", "loaders"):
        (project.root / ".meltano" / kind).parent.mkdir(exist_ok=True)
        (project.root / ".meltano" / kind).symlink_to(REPOSITORY / ".meltano" / kind)
    (project.root / "extract/extractors.meltano.yml").write_text("""
plugins:
  extractors:
    - name: tap-postgres
      variant: tidemark
      config:
        lookback_second: 5
        masks: {public-a: {email: redact}}
        ssh_tunnel: {enable: true, hosst: bastion}
        ssh_tunnel.port: 22
    - {name: tap-crm, inherit_from: tap-postgres, config: {data_base: crm, use_copy: true}}
    - {name: tap-own, namespace: tap_own, executable: x, settings: [{name: one}], config: {one: 1, tow: 2}}
""")
    path = project.root / "meltano.yml"
    text = path.read_text().replace(
        "  - name: prod\n",
        "  - name: prod\n    config: {plugins: {loaders: [{name: target-postgres, config: {hard_deletes: true}}]}}\n",
    )
    path.write_text(text)
    found = list(check_settings.unknown(project, yaml_files.read(project)))
    assert {finding.level for finding in found} == {"error"}
    assert [(finding.side, finding.what) for finding in found] == [
        (side, f"`{key}` under `config` of {plugin} is not a setting{meant}: correct or remove it")
        for side, plugin, key, meant in [
            ("source", "tap-postgres", "lookback_second", "; lookback_seconds is one"),
            ("source", "tap-postgres", "ssh_tunnel.hosst", "; ssh_tunnel.host is one"),
            ("source", "tap-crm", "data_base", "; database is one"),
            ("source", "tap-own", "tow", ""),
            ("warehouse", "target-postgres", "hard_deletes", "; hard_delete is one"),
        ]
    ]


def test_check_refuses_misspelt_keys_of_meltano(project):
    (project.root / "extract/extractors.meltano.yml").write_text("""
plugins:
  extractors:
    - {name: tap-postgres, variant: tidemark, selct: [public-orders.*], config: {any: thing}}
shedules: []
""")
    path = project.root / "meltano.yml"
    path.write_text(path.read_text().replace("  - name: prod\n", "  - name: prod\n    conifg: {}\n"))
    place = "extract/extractors.meltano.yml"
    found = list(check_settings.misspelt_keys(project, yaml_files.read(project)))
    assert [(finding.level, finding.what) for finding in found] == [
        ("error", f"`{key}` of {of} is not a key of Meltano; {meant} is one: correct or remove it")
        for key, of, meant in [
            ("conifg", "prod of meltano.yml", "config"),
            ("shedules", place, "schedules"),
            ("selct", f"tap-postgres of {place}", "select"),
        ]
    ]


def test_check_leaves_keys_alone_that_meltano_reads_and_that_are_the_users_own(project):
    assert list(check_settings.misspelt_keys(project, yaml_files.read(project))) == []
    path = project.root / "meltano.yml"
    text = path.read_text().replace("  - name: prod\n", "  - name: prod\n    state_id_suffix: x\n")
    path.write_text(
        text + "state_backend.lock_timeout_seconds: 77\ndisable_tracking: true\nx-common: &c {a: 1}\non: {}\n1: x\n"
    )
    (project.root / "extract/extractors.meltano.yml").write_text("""
plugins:
  extractors:
    - {name: tap-own, namespace: tap_own, settings: [{name: _foo}], foo: 1, keywords: [a], annotations: {b: {}}}
  loaders: [{name: target-own, namespace: own, log_parser: singer-sdk, dialect: postgres}]
  mappers: [{name: map, namespace: map, log_parser: singer-sdk, mappings: [{name: m, config: {}}]}]
  utilities: [{name: util, namespace: util, capabilities: [about], 5: 1}]
  files: [{name: files, update: {x: true}}]
schedules: [{name: s, job: j, interval: "@daily", env: {A: b}}]
jobs: [{name: j, tasks: [[tap-own target-own], util]}]
""")
    assert list(check_settings.misspelt_keys(project, yaml_files.read(project))) == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{name: tap-postgres}", "it names no variant; set `variant: tidemark`."),
        ("{name: tap-postgres, variant: tidmark}", "its variant is 'tidmark', and there is no "),
        ("{name: tap-other, variant: x}", "`meltano add tap-other` adds the one of Meltano Hub."),
    ],
    ids=["no-variant", "no-lock", "unknown"],
)
def test_a_plugin_without_a_definition_is_refused_before_meltano_asks_its_hub(project, entry, says):
    (project.root / "extract/extractors.meltano.yml").write_text(f"plugins: {{extractors: [{entry}]}}\n")
    with pytest.raises(settings.UsageError) as refusal:
        list(check_settings.unknown(project, yaml_files.read(project)))
    assert says in str(refusal.value)
    if "tap-postgres" in entry:
        with pytest.raises(settings.UsageError, match="has no definition"):
            settings.read(project)


def test_variables_in_yaml_are_expanded_as_in_meltano(project, monkeypatch):
    monkeypatch.setenv("WHERE", "expanded.example")
    put(project, monkeypatch, "yaml", "target-postgres", {"host": "$WHERE", "database": "${WHERE}"})
    _, warehouse = settings.read(project)
    assert (warehouse.host, warehouse.database) == ("expanded.example", "expanded.example")
    # `env` in YAML overrides the environment
    path = project.root / "meltano.yml"
    path.write_text(path.read_text() + "env: {TAP_POSTGRES_HOST: env.example}\n")
    monkeypatch.setenv("TAP_POSTGRES_HOST", "process.example")
    assert settings.read(project)[0].host == of_meltano(project, "tap-postgres")["host"] == "env.example"


def test_names_of_variables_are_case_sensitive_as_in_meltano(project, monkeypatch):
    monkeypatch.setenv("tap_postgres_host", "small.example")
    project.dotenv.write_text("Target_Postgres_Host=small.example\n")
    assert [side.embedded for side in settings.read(project)] == [True, True]
    assert of_meltano(project, "tap-postgres")["host"] == "127.0.0.1"


def test_a_truth_value_that_meltano_reads_as_false_is_refused(project, monkeypatch):
    monkeypatch.setenv("TAP_POSTGRES_SSL_ENABLE", "y")
    assert of_meltano(project, "tap-postgres")["ssl_enable"] is False
    with pytest.raises(settings.UsageError, match=r"TAP_POSTGRES_SSL_ENABLE is 'y': .* one of true, 1, yes, on, false"):
        settings.read(project)


@pytest.mark.parametrize(
    ("process", "dotenv", "default", "expected"),
    [
        ({}, "", "dev", "dev"),
        ({}, "MELTANO_ENVIRONMENT=prod", "dev", "prod"),
        ({"MELTANO_ENVIRONMENT": "prod"}, "", "dev", "prod"),
        ({"MELTANO_ENVIRONMENT": "dev"}, "MELTANO_ENVIRONMENT=prod", "dev", "dev"),
        ({"MELTANO_ENVIRONMENT": ""}, "MELTANO_ENVIRONMENT=prod", "dev", "dev"),
        ({}, "MELTANO_ENVIRONMENT=${WHICH:-prod}", "dev", "prod"),
        ({}, "MELTANO_DEFAULT_ENVIRONMENT=prod", "dev", "prod"),
        ({}, "MELTANO_ENVIRONMENT=null", "dev", None),
        ({}, "", None, None),
    ],
)
def test_the_environment_is_the_one_that_meltano_runs_in(  # noqa: PLR0913, PLR0917 - a table's columns
    project, monkeypatch, process, dotenv, default, expected
):
    if default is None:
        path = project.root / "meltano.yml"
        path.write_text(path.read_text().replace("default_environment: dev\n", ""))
    project.dotenv.write_text(f"{dotenv}\n")
    for name, value in process.items():
        monkeypatch.setenv(name, value)
    MeltanoProject.deactivate()
    meltano = MeltanoProject.find(project.root)
    selected, _ = detect_selected_environment(cli_environment=None, cli_no_environment=False, project=meltano)
    assert selected == expected
    if expected:
        assert variables.environment(project) == expected
    else:
        with pytest.raises(settings.UsageError, match="No Meltano environment is selected"):
            variables.environment(project)


def test_an_unknown_environment_is_refused_in_one_line(project):
    project.dotenv.write_text("MELTANO_ENVIRONMENT=staging\n")
    with pytest.raises(settings.UsageError, match=r"is 'staging', which meltano\.yml does not have"):
        meltano_project.find(project)
