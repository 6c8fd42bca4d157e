"""The warehouse's address and the role that reads its run records, from the pipeline's own variables."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class WarehouseSettings(BaseSettings):
    """The warehouse, with the target's settings."""

    model_config = SettingsConfigDict(env_prefix="TARGET_POSTGRES_", env_ignore_empty=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(default=5434, ge=1, le=65535)
    database: str = "warehouse"
    default_target_schema: str = "raw"
    ssl_enable: bool = False
    ssl_mode: str = "verify-full"
    ssl_certificate_authority: str | None = None
    marts_prefix: str = Field(default="", validation_alias="DBT_SCHEMA_PREFIX")

    @property
    def marts(self) -> str:
        """The schema of dbt's run records."""
        return f"{self.marts_prefix}marts"

    def __str__(self) -> str:
        return f"{self.database} on {self.host}:{self.port}"


class Monitor(BaseSettings):
    """The role that reads."""

    model_config = SettingsConfigDict(env_prefix="TIDEMARK_MONITOR_", env_ignore_empty=True, extra="ignore")

    user: str = "tidemark_watcher"
    password: SecretStr | None = None


def parameters(warehouse: WarehouseSettings, monitor: Monitor) -> dict[str, Any]:
    """Return libpq's parameters, with the same TLS settings as tap and target."""
    found: dict[str, Any] = {
        "host": warehouse.host,
        "port": warehouse.port,
        "dbname": warehouse.database,
        "user": monitor.user,
    }
    if monitor.password:
        found["password"] = monitor.password.get_secret_value()
    if warehouse.ssl_enable:
        found["sslmode"] = warehouse.ssl_mode
        if warehouse.ssl_certificate_authority:
            found["sslrootcert"] = warehouse.ssl_certificate_authority
    return found
