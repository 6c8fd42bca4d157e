"""Where log lines go, and for how long they stay."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING

from pydantic import AnyHttpUrl, BaseModel, Field, SecretStr

from tidemark.project import variables

if TYPE_CHECKING:
    from tidemark.project.directory import Project


class LogSettings(BaseModel):
    """How long the log files stay. They are the shipper's buffer, so they outlast any outage of Elasticsearch."""

    keep_days: int = Field(default=14, ge=1)


class ElasticsearchSettings(BaseModel):
    """The Elasticsearch that the shipper sends to, and its Kibana."""

    url: AnyHttpUrl | None = None
    user: str | None = None
    password: SecretStr | None = None
    api_key: SecretStr | None = None
    ssl_certificate_authority: Path | None = None
    keep_days: int = Field(default=30, ge=1)
    kibana_url: AnyHttpUrl | None = None


def log_settings(project: Project) -> LogSettings:
    """Return the settings of the log files.

    Raises:
        UsageError: a variable's value can't be used.
    """
    return variables.read_into(LogSettings, "TIDEMARK_LOG_", project)


def elasticsearch_settings(project: Project) -> ElasticsearchSettings:
    """Return the settings of Elasticsearch.

    Raises:
        UsageError: a variable's value can't be used.
    """
    return variables.read_into(ElasticsearchSettings, "TIDEMARK_ELASTICSEARCH_", project)
