from __future__ import annotations

import os

import psycopg
import pytest

from tidemark.errors import UsageError
from tidemark.local.secrets_file import ensure_passwords
from tidemark.project import connections, database_settings
from tidemark.project.directory import Project


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    for name in os.environ:
        if name.startswith(("TAP_POSTGRES", "TARGET_POSTGRES", "DBT_POSTGRES", "TIDEMARK", "MELTANO")):
            monkeypatch.delenv(name)
    (tmp_path / "meltano.yml").touch()
    return Project(tmp_path)


def test_defaults_are_the_embedded_servers(project):
    source, warehouse = database_settings.read(project)
    assert (source.address, source.port, source.database, source.embedded) == ("127.0.0.1", 5433, "shop", True)
    assert (warehouse.address, warehouse.port, warehouse.database) == ("127.0.0.1", 5434, "warehouse")


def test_the_environment_overrides_the_file_and_empty_means_unset(project, monkeypatch):
    project.dotenv.write_text("TAP_POSTGRES_HOST=file.example\nTAP_POSTGRES_PORT=1111\nTARGET_POSTGRES_HOST=\n")
    monkeypatch.setenv("TAP_POSTGRES_PORT", "2222")
    monkeypatch.setenv("TARGET_POSTGRES_PORT", "")
    source, warehouse = database_settings.read(project)
    assert (source.host, source.port, source.embedded) == ("file.example", 2222, False)
    assert (warehouse.port, warehouse.embedded) == (5434, True)


@pytest.mark.parametrize("port", ["x", "0", "70000"])
def test_an_invalid_port_is_named_with_its_variable(project, monkeypatch, port):
    monkeypatch.setenv("TARGET_POSTGRES_PORT", port)
    with pytest.raises(UsageError, match=f"TARGET_POSTGRES_PORT is '{port}'"):
        database_settings.read(project)


def test_an_invalid_line_of_the_file_is_named(project):
    project.dotenv.write_text("# mine\nTAP_POSTGRES_HOST=db.example.com\nthis is = not 'a setting\n")
    with pytest.raises(UsageError, match=r"Line 3 of .*\.env can't be read"):
        database_settings.read(project)


def test_dbt_has_its_own_connection_to_the_warehouse_if_one_is_set(project, monkeypatch):
    project.dotenv.write_text("TARGET_POSTGRES_HOST=pool.example\nTARGET_POSTGRES_PASSWORD=x\n")
    _, warehouse = database_settings.read(project)
    assert database_settings.transformer(project, warehouse) == warehouse
    monkeypatch.setenv("DBT_POSTGRES_HOST", "direct.example")
    monkeypatch.setenv("DBT_POSTGRES_PORT", "6543")
    assert database_settings.transformer_variables(project, warehouse) == {
        "DBT_POSTGRES_HOST": "direct.example",
        "DBT_POSTGRES_PORT": "6543",
        "DBT_POSTGRES_USER": "tidemark_loader",
        "DBT_POSTGRES_PASSWORD": "x",
    }


@pytest.mark.parametrize(
    ("reason", "named"), [("refused", "DBT_POSTGRES_HOST"), ("no ssl error", "TARGET_POSTGRES_SSL")]
)
def test_a_failed_connection_of_dbt_names_dbts_own_variables(project, monkeypatch, reason, named):
    monkeypatch.setenv("TARGET_POSTGRES_HOST", "pool.example")
    monkeypatch.setenv("DBT_POSTGRES_HOST", "direct.example")
    side = database_settings.transformer(project, database_settings.read(project)[1])
    assert f"check {named}" in connections._explain(side, psycopg.OperationalError(reason))


def test_an_invalid_port_of_dbt_is_named_with_its_variable(project, monkeypatch):
    monkeypatch.setenv("DBT_POSTGRES_PORT", "x")
    with pytest.raises(UsageError, match="DBT_POSTGRES_PORT is 'x'"):
        database_settings.transformer(project, database_settings.read(project)[1])


def test_a_child_process_gets_no_empty_setting(project, monkeypatch):
    monkeypatch.setenv("TAP_POSTGRES_HOST", "")
    monkeypatch.setenv("TAP_POSTGRES_PASSWORD", "")
    project.dotenv.write_text("TAP_POSTGRES_PORT=1111\n")
    assert database_settings.read(project)[0].variables() == {
        "TAP_POSTGRES_HOST": "127.0.0.1",
        "TAP_POSTGRES_PORT": "1111",
        "TAP_POSTGRES_USER": "tidemark_reader",
        "TAP_POSTGRES_DATABASE": "shop",
    }


def test_one_port_for_both_servers_is_refused(project, monkeypatch):
    monkeypatch.setenv("TAP_POSTGRES_PORT", "5434")
    with pytest.raises(UsageError, match="are both 5434"):
        database_settings.read(project)


def test_a_url_survives_any_character_in_any_part(project, monkeypatch):
    odd = "p@ss:/?#[]%&= wörd'\""
    monkeypatch.setenv("TAP_POSTGRES_PASSWORD", odd)
    monkeypatch.setenv("TAP_POSTGRES_USER", odd)
    monkeypatch.setenv("TAP_POSTGRES_DATABASE", odd)
    monkeypatch.setenv("TAP_POSTGRES_HOST", "::1")
    parts = psycopg.conninfo.conninfo_to_dict(connections.url(database_settings.read(project)[0]))
    assert parts == {"user": odd, "password": odd, "dbname": odd, "host": "::1", "port": "5433"}


def test_tls_settings_reach_libpq(project, monkeypatch):
    monkeypatch.setenv("TARGET_POSTGRES_SSL_ENABLE", "true")
    monkeypatch.setenv("TARGET_POSTGRES_SSL_CERTIFICATE_AUTHORITY", "/etc/my ca.pem")
    parts = psycopg.conninfo.conninfo_to_dict(connections.url(database_settings.read(project)[1]))
    assert parts["sslmode"] == "verify-full"
    assert parts["sslrootcert"] == "/etc/my ca.pem"


def test_a_password_is_generated_only_for_an_embedded_server_without_one(project):
    project.dotenv.write_text("# mine\nTAP_POSTGRES_HOST=db.example.com\n")
    assert ensure_passwords(project, database_settings.read(project))
    text = project.dotenv.read_text()
    assert text.startswith("# mine\n")
    assert "TAP_POSTGRES_PASSWORD" not in text
    password = database_settings.read(project)[1].password
    assert password
    assert len(password.get_secret_value()) >= 32
    assert not ensure_passwords(project, database_settings.read(project))


def test_a_message_never_shows_a_password(project, monkeypatch):
    monkeypatch.setenv("TAP_POSTGRES_PASSWORD", "hunter2")
    source, _ = database_settings.read(project)
    assert "hunter2" not in f"{source} {source!r}"
