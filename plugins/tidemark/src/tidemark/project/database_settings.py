"""The settings of the databases, from the environment, .env and Meltano's own settings."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (pydantic needs it at run time)
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, field_validator

from tidemark.errors import UsageError
from tidemark.project import resolved_settings, sources, variables

if TYPE_CHECKING:
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

SideName = Literal["source", "warehouse"]
ServerName = Literal["source", "warehouse", "airflow"]
LOOPBACK = "127.0.0.1"
_RAW = "raw"
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_S = TypeVar("_S", "Warehouse", "TransformerLogin")
# the owner of the embedded servers: it creates databases, roles and the demo shop, and no run connects as it
ADMIN = "tidemark"
TRANSFORMER = "tidemark_transformer"
WATCHER = "tidemark_watcher"
GRAFANA = "tidemark_grafana"


class DatabaseSettings(BaseModel):
    """One database of the pipeline. The fields are the variables `{prefix}_HOST`, `{prefix}_PORT` and so on."""

    side: ClassVar[ServerName]
    variables_prefix: ClassVar[str]

    host: str | None = None
    port: int = Field(ge=1, le=65535)
    user: str
    password: SecretStr | None = None
    database: str
    ssl_enable: bool = False
    ssl_mode: str = "verify-full"
    ssl_certificate_authority: str | None = None

    @field_validator("ssl_enable", mode="before")
    @classmethod
    def _as_meltano_has_it(cls, value: Any) -> Any:
        """Accept the words that Meltano accepts. Any other word, such as `y`, would mean false to Meltano."""
        if str(value).lower() not in _WORDS:
            raise ValueError(f"it must be one of {', '.join(_WORDS)}")
        return _WORDS[str(value).lower()]

    @property
    def embedded(self) -> bool:
        """Whether Tidemark runs this server itself: only if the user names no host, not even 127.0.0.1."""
        return self.host is None

    @property
    def address(self) -> str:
        """The host to connect to."""
        return self.host or LOOPBACK

    @property
    def prefix(self) -> str:
        """What the names of its variables begin with."""
        return self.variables_prefix

    @property
    def login_prefix(self) -> str:
        """The prefix of the variables for address and login."""
        return self.prefix

    @property
    def title(self) -> str:
        """What to call it among the databases of the pipeline."""
        return self.side

    def variables(self) -> dict[str, str]:
        """Return the settings as variables for a child. None is empty: tap, target and dbt differ on empty ones."""
        found = {
            "HOST": self.address,
            "PORT": str(self.port),
            "USER": self.user,
            "DATABASE": self.database,
            **({"PASSWORD": self.password.get_secret_value()} if self.password else {}),
        }
        if self.ssl_enable:
            found |= {"SSL_ENABLE": "true", "SSL_MODE": self.ssl_mode}
            if self.ssl_certificate_authority:
                found["SSL_CERTIFICATE_AUTHORITY"] = self.ssl_certificate_authority
        return {f"{self.prefix}_{name}": value for name, value in found.items()}

    def __str__(self) -> str:
        """Return the database's name for messages, without a secret."""
        return f"{self.title} database {self.database!r} on {self.address}:{self.port}"


class Source(DatabaseSettings):
    """A database that a tap reads. The defaults are those of the first source, which may have an embedded server."""

    side = "source"
    variables_prefix = sources.prefix(sources.TAP)

    port: int = Field(default=5433, ge=1, le=65535)
    user: str = "tidemark_reader"
    database: str = "shop"
    _tap: str = PrivateAttr(default=sources.TAP)

    @classmethod
    def of(cls, tap: str, values: dict[str, str]) -> Source:
        """Return the database of a tap from its settings.

        Raises:
            UsageError: a value can't be used.
        """
        source = variables.fill(cls, f"{sources.prefix(tap)}_", values)
        source._tap = tap  # noqa: SLF001 - its own class
        return source

    @property
    def prefix(self) -> str:
        """What the names of its variables begin with."""
        return sources.prefix(self._tap)

    @property
    def title(self) -> str:
        """What to call it among the databases of the pipeline: a further source has its name before it."""
        return self.side if self._tap == sources.TAP else f"{self._tap.removeprefix('tap-')} {self.side}"


class Warehouse(DatabaseSettings):
    """The database that the target writes, and in which dbt builds with a role of its own."""

    side = "warehouse"
    variables_prefix = "TARGET_POSTGRES"

    port: int = Field(default=5434, ge=1, le=65535)
    user: str = "tidemark_loader"
    database: str = "warehouse"
    default_target_schema: str = _RAW

    def variables(self) -> dict[str, str]:
        """Return the settings as variables for a child process. dbt also takes the schema from here."""
        schema = self.default_target_schema
        more = {} if schema == _RAW else {f"{self.prefix}_DEFAULT_TARGET_SCHEMA": schema}
        return {**super().variables(), **more}


class Models(Warehouse):
    """The warehouse with dbt's own address or login."""

    @property
    def login_prefix(self) -> str:
        """The prefix of the variables for address and login."""
        return TransformerLogin.variables_prefix


class AirflowDatabase(DatabaseSettings):
    """The database of Airflow's metadata."""

    side = "airflow"
    variables_prefix = "AIRFLOW_POSTGRES"

    port: int = Field(default=5435, ge=1, le=65535)
    user: str = "airflow"
    database: str = "airflow"


class Machine(BaseModel):
    """Settings of this machine, whichever databases it uses."""

    postgres_bin: Path | None = None
    admin_password: SecretStr | None = None


class TransformerLogin(BaseModel):
    """dbt's login in the warehouse, and its address."""

    variables_prefix: ClassVar[str] = "DBT_POSTGRES"
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    user: str | None = None
    password: SecretStr | None = None


class MonitorLogin(BaseModel):
    """The login that reads the run history for Airflow's page of streams."""

    user: str = WATCHER
    password: SecretStr | None = None


class ReporterLogin(BaseModel):
    """The login that reads marts for Grafana."""

    user: str = GRAFANA
    password: SecretStr | None = None


def admin(project: Project, side: DatabaseSettings) -> DatabaseSettings:
    """Return an embedded `side` with its owner's login. Return the user's own database unchanged."""
    if not side.embedded:
        return side
    return side.model_copy(update={"user": ADMIN, "password": _machine(project).admin_password})


def transformer(project: Project, warehouse: Warehouse) -> Warehouse:
    """Return the warehouse's settings for dbt. Settings that dbt lacks are the target's.

    Raises:
        UsageError: a variable's value can't be used.
    """
    own = _read(TransformerLogin, project)
    if not (warehouse.embedded or own.host or own.port or own.user):
        return warehouse
    login = {"user": warehouse.user, "password": warehouse.password}
    if own.user or warehouse.embedded:
        login = {"user": own.user or TRANSFORMER, "password": own.password}
    way = {"host": own.host or warehouse.host, "port": own.port or warehouse.port}
    return Models.model_construct(**{**dict(warehouse), **login, **way})


def monitor(project: Project, warehouse: Warehouse) -> Warehouse:
    """Return the warehouse's settings with the login of the role that watches runs."""
    login = variables.read_into(MonitorLogin, "TIDEMARK_MONITOR_", project)
    return warehouse.model_copy(update={"user": login.user, "password": login.password})


def reporter(project: Project, warehouse: Warehouse) -> Warehouse:
    """Return the warehouse's settings with the login of the role that reads marts."""
    login = variables.read_into(ReporterLogin, "TIDEMARK_REPORTER_", project)
    return warehouse.model_copy(update={"user": login.user, "password": login.password})


def transformer_variables(project: Project, warehouse: Warehouse) -> dict[str, str]:
    """Return dbt's address and login in the warehouse as variables for a child process."""
    side = transformer(project, warehouse)
    password = {"DBT_POSTGRES_PASSWORD": side.password.get_secret_value()} if side.password else {}
    return {
        "DBT_POSTGRES_HOST": side.address,
        "DBT_POSTGRES_PORT": str(side.port),
        "DBT_POSTGRES_USER": side.user,
        **password,
    }


def postgres_bin(project: Project) -> Path | None:
    """Return TIDEMARK_POSTGRES_BIN: a directory whose programs run the embedded servers instead of the wheel's."""
    named = _machine(project).postgres_bin
    return named.expanduser().resolve() if named else None


def read(project: Project) -> tuple[Source, Warehouse]:
    """Read the first source and the warehouse as Meltano does: from the environment, .env, its files, its database.

    Raises:
        UsageError: a variable's value can't be used.
    """
    found, into = _source(project, sources.TAP), warehouse(project)
    if found.embedded and into.embedded and found.port == into.port:
        raise UsageError(
            f"TAP_POSTGRES_PORT and TARGET_POSTGRES_PORT are both {found.port}; give the two servers different ports."
        )
    return found, into


def source(project: Project, definition: SourceDefinition) -> Source:
    """Read the settings of a source's database.

    Raises:
        UsageError: a variable's value can't be used, or a further source has no address of its own.
    """
    return read(project)[0] if definition.first else _source(project, definition.tap)


def warehouse(project: Project, definition: SourceDefinition | None = None) -> Warehouse:
    """Read the settings of the warehouse, with the raw schema of a source, or else of the first one.

    Raises:
        UsageError: a variable's value can't be used.
    """
    found = _read(Warehouse, project)
    return found.model_copy(update={"default_target_schema": definition.raw_schema}) if definition else found


def all_databases(project: Project) -> list[DatabaseSettings]:
    """Read all databases that may have an embedded server.

    Raises:
        UsageError: a variable's value can't be used.
    """
    return [*read(project), airflow_database(project)]


def airflow_database(project: Project) -> AirflowDatabase:
    """Read the settings of Airflow's database.

    Raises:
        UsageError: a variable's value can't be used.
    """
    return variables.read_into(AirflowDatabase, f"{AirflowDatabase.variables_prefix}_", project)


def _machine(project: Project) -> Machine:
    return variables.read_into(Machine, "TIDEMARK_", project)


def _source(project: Project, tap: str) -> Source:
    found = _values(project, tap, Source)
    if tap != sources.TAP and (missing := [name for name in ("host", "database") if name not in found]):
        names = " and ".join(f"{sources.prefix(tap)}_{name.upper()}" for name in missing)
        what = f"Source {tap.removeprefix('tap-')} has no {' and no '.join(missing)}"
        raise UsageError(f"{what}: set {names} in .env or the environment.")
    return Source.of(tap, found)


def _read(kind: type[_S], project: Project) -> _S:
    """Read the settings that the plugin of a database has."""
    plugin = kind.variables_prefix.lower().replace("_", "-")
    return variables.fill(kind, f"{kind.variables_prefix}_", _values(project, plugin, kind))


def _values(project: Project, plugin: str, kind: type[BaseModel]) -> dict[str, str]:
    found = resolved_settings.read(project, plugin, list(kind.model_fields))
    # the plugins' default address is our own server's, which only runs if the user names none
    if (host := found.get("host")) and host.is_default and host.value == LOOPBACK:
        del found["host"]
    return {name: setting.value for name, setting in found.items()}
