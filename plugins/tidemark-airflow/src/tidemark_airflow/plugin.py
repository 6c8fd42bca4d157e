"""The plugin that Airflow loads into its own processes: the page of streams and its place in the navigation."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from airflow.plugins_manager import AirflowPlugin

from tidemark_airflow import deadlines
from tidemark_airflow.streams.page import app

# every process that loads plugins
deadlines.repair()

_PREFIX = "/tidemark"
# waves
_ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='{}' stroke-width='2' "
    "stroke-linecap='round'><path d='M2 7q2.5-3 5 0t5 0 5 0 5 0M2 12q2.5-3 5 0t5 0 5 0 5 0M2 17q2.5-3 5 0t5 0 5 0 5 0'"
    "/></svg>"
)


def _icon(colour: str) -> str:
    return f"data:image/svg+xml,{quote(_ICON.format(colour))}"


class TidemarkPlugin(AirflowPlugin):
    """The page, and its entry in Airflow's navigation."""

    name = "tidemark"
    fastapi_apps: ClassVar[list[Any]] = [{"name": "Tidemark's streams", "app": app, "url_prefix": _PREFIX}]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "Streams",
            # relative to Airflow's base URL, which may have a path
            "href": f"{_PREFIX.removeprefix('/')}/",
            "destination": "nav",
            "url_route": "streams",
            "nav_top_level": True,
            "icon": _icon("#8094b0"),
            "icon_dark_mode": _icon("#cbd5e0"),
        }
    ]
