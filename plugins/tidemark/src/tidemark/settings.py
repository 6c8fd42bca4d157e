"""The two databases, as the environment and .env name them."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (pydantic looks at it when it runs)
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from tidemark.project import Project

SideName = Literal["source", "warehouse"]
ServerName = Literal["source", "warehouse", "airflow"]
LOOPBACK = "127.0.0.1"
_S = TypeVar("_S", "Source", "Warehouse", "AirflowDatabase", "TransformerLogin")
# whose the embedded servers are: makes databases, roles and the demo shop; nothing of a run connects as it
ADMIN = "tidemark"
TRANSFORMER = "tidemark_transformer"
WATCHER = "tidemark_watcher"


class Side(BaseSettings):
    """One end of the pipeline. Fields are the variables `{prefix}_HOST`, `{prefix}_PORT` and so on."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", env_file_encoding="utf-8")
    side: ClassVar[ServerName]
    prefix: ClassVar[str]

    host: str | None = None
    port: int = Field(ge=1, le=65535)
    user: str
    password: SecretStr | None = None
    database: str
    ssl_enable: bool = False
    ssl_mode: str = "verify-full"
    ssl_certificate_authority: str | None = None

    @property
    def embedded(self) -> bool:
        """Whether Tidemark runs this server itself: only while nobody names a host, not even 127.0.0.1."""
        return self.host is None

    @property
    def address(self) -> str:
        """The host to connect to."""
        return self.host or LOOPBACK

    @property
    def login_prefix(self) -> str:
        """How the variables begin that say how to get there, and as whom."""
        return self.prefix

    def variables(self) -> dict[str, str]:
        """Return the settings as variables for a child: none empty, which tap, target and dbt each take otherwise."""
        found = {
            "HOST": self.address,
            "PORT": str(self.port),
            "USER": self.user,
            "DATABASE": self.database,
            **({"PASSWORD": self.password.get_secret_value()} if self.password else {}),
        }
        return {f"{self.prefix}_{name}": value for name, value in found.items()}

    def __str__(self) -> str:
        """Return how messages name this database; holds no secret."""
        return f"{self.side} database {self.database!r} on {self.address}:{self.port}"


class Source(Side):
    """What the tap reads."""

    model_config = SettingsConfigDict(env_prefix="TAP_POSTGRES_")
    side = "source"
    prefix = "TAP_POSTGRES"

    port: int = Field(default=5433, ge=1, le=65535)
    user: str = "tidemark_reader"
    database: str = "shop"


class Warehouse(Side):
    """What the target writes, and dbt builds in as a user of its own."""

    model_config = SettingsConfigDict(env_prefix="TARGET_POSTGRES_")
    side = "warehouse"
    prefix = "TARGET_POSTGRES"

    port: int = Field(default=5434, ge=1, le=65535)
    user: str = "tidemark_loader"
    database: str = "warehouse"
    default_target_schema: str = "raw"


class Models(Warehouse):
    """The warehouse as dbt connects to it, where that is not as the target does."""

    @property
    def login_prefix(self) -> str:
        """How the variables begin that say how to get there, and as whom."""
        return TransformerLogin.prefix


class AirflowDatabase(Side):
    """What Airflow keeps its metadata in."""

    model_config = SettingsConfigDict(env_prefix="AIRFLOW_POSTGRES_")
    side = "airflow"
    prefix = "AIRFLOW_POSTGRES"

    port: int = Field(default=5435, ge=1, le=65535)
    user: str = "airflow"
    database: str = "airflow"


def _refuse_unreadable(dotenv: Path) -> None:
    """Stop at a line that is no setting; python-dotenv would skip it, and a setting would be lost."""
    if not dotenv.exists():
        return
    with dotenv.open(encoding="utf-8") as lines:
        for binding in parse_stream(lines):
            if binding.error:
                text = binding.original.string.strip()
                raise UsageError(
                    f"Line {binding.original.line} of {dotenv} can't be read: {text!r}; write NAME=value, "
                    "or put a # before it."
                )


class Machine(BaseSettings):
    """What holds for this machine, whichever databases are used."""

    model_config = SettingsConfigDict(
        env_prefix="TIDEMARK_", env_ignore_empty=True, extra="ignore", env_file_encoding="utf-8"
    )
    postgres_bin: Path | None = None
    admin_password: SecretStr | None = None


class TransformerLogin(BaseSettings):
    """Who dbt is in the warehouse, and how it gets there."""

    model_config = SettingsConfigDict(
        env_prefix="DBT_POSTGRES_", env_ignore_empty=True, extra="ignore", env_file_encoding="utf-8"
    )
    prefix: ClassVar[str] = "DBT_POSTGRES"
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    user: str | None = None
    password: SecretStr | None = None


class MonitorLogin(BaseSettings):
    """Who reads the run history for Airflow's page of streams."""

    model_config = SettingsConfigDict(
        env_prefix="TIDEMARK_MONITOR_", env_ignore_empty=True, extra="ignore", env_file_encoding="utf-8"
    )
    user: str = WATCHER
    password: SecretStr | None = None


def admin(project: Project, side: Side) -> Side:
    """Return an embedded `side` as its owner connects to it; a user's own as it is."""
    if not side.embedded:
        return side
    password = Machine(_env_file=project.dotenv).admin_password  # type: ignore[call-arg]
    return side.model_copy(update={"user": ADMIN, "password": password})


def transformer(project: Project, warehouse: Warehouse) -> Warehouse:
    """Return the warehouse as dbt connects to it; as the target does, in all that isn't named for dbt.

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
    """Return the warehouse as whoever watches it connects to it."""
    login = MonitorLogin(_env_file=project.dotenv)  # type: ignore[call-arg]
    return warehouse.model_copy(update={"user": login.user, "password": login.password})


def transformer_variables(project: Project, warehouse: Warehouse) -> dict[str, str]:
    """Return what tells a child who dbt is, and how it gets to the warehouse."""
    side = transformer(project, warehouse)
    password = {"DBT_POSTGRES_PASSWORD": side.password.get_secret_value()} if side.password else {}
    return {
        "DBT_POSTGRES_HOST": side.address,
        "DBT_POSTGRES_PORT": str(side.port),
        "DBT_POSTGRES_USER": side.user,
        **password,
    }


def postgres_bin(project: Project) -> Path | None:
    """Return TIDEMARK_POSTGRES_BIN: whose programs run the embedded servers, in place of the wheel's."""
    named = Machine(_env_file=project.dotenv).postgres_bin  # type: ignore[call-arg]
    return named.expanduser().resolve() if named else None


def read(project: Project) -> tuple[Source, Warehouse]:
    """Read both sides. The environment goes before .env, as it does in Meltano.

    Raises:
        UsageError: a variable's value can't be used.
    """
    source, warehouse = _read(Source, project), _read(Warehouse, project)
    if source.embedded and warehouse.embedded and source.port == warehouse.port:
        raise UsageError(
            f"TAP_POSTGRES_PORT and TARGET_POSTGRES_PORT are both {source.port}; give the two servers different ports."
        )
    return source, warehouse


def all_sides(project: Project) -> list[Side]:
    """Read all databases that embedded servers may be run for.

    Raises:
        UsageError: a variable's value can't be used.
    """
    return [*read(project), airflow_database(project)]


def airflow_database(project: Project) -> AirflowDatabase:
    """Read where Airflow's metadata is.

    Raises:
        UsageError: a variable's value can't be used.
    """
    return _read(AirflowDatabase, project)


def _read(kind: type[_S], project: Project) -> _S:
    _refuse_unreadable(project.dotenv)
    try:
        return kind(_env_file=project.dotenv)  # type: ignore[call-arg]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = f"{kind.prefix}_{str(first['loc'][0]).upper()}"
        raise UsageError(f"{variable} is {first['input']!r}: {first['msg']}; correct it.") from None
