"""Settings of DAGs: the variables TIDEMARK_DAG_…, which a schedule's `env` overrides."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "TIDEMARK_DAG_"


class DagSettings(BaseSettings):
    """The settings of one schedule."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, extra="ignore")

    owner: str = "data"
    """Who is responsible for the DAG; alerts name them."""
    retries: int = Field(default=3, ge=0)
    retry_delay_seconds: float = Field(default=60, gt=0)
    """Before the first retry; doubled before each further one."""
    longest_retry_delay_minutes: float = Field(default=30, gt=0)
    task_timeout_minutes: float = Field(default=180, gt=0)
    """After this time, a task and everything that it started is ended."""
    deadline_minutes: float = Field(default=240, gt=0)
    """After this time, an alert reports a run that has not ended."""

    @property
    def default_args(self) -> dict[str, object]:
        """The arguments of each task of the DAG."""
        return {
            "owner": self.owner,
            "retries": self.retries,
            "retry_delay": timedelta(seconds=self.retry_delay_seconds),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=self.longest_retry_delay_minutes),
            "execution_timeout": timedelta(minutes=self.task_timeout_minutes),
        }


def of(name: str, env: Mapping[str, str]) -> DagSettings:
    """Return the settings of a schedule.

    Raises:
        ValueError: a variable's value is invalid.
    """
    own = {key.removeprefix(_PREFIX).lower(): value for key, value in env.items() if key.startswith(_PREFIX)}
    try:
        return DagSettings(**own)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        variable = f"{_PREFIX}{str(first['loc'][0]).upper()}"
        msg = f"{variable} of {name} is {first['input']!r}: {first['msg']}; correct it in .env or the schedule's env."
        raise ValueError(msg) from None
