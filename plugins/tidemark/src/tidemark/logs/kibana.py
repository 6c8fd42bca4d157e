"""Imports the saved searches and the dashboard into Kibana."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

from tidemark.errors import TidemarkError, UsageError
from tidemark.logs.elasticsearch import session
from tidemark.logs.settings import elasticsearch_settings

if TYPE_CHECKING:
    from tidemark.project.directory import Project

_TIMEOUT_S = 60


def import_objects(project: Project) -> int:
    """Import the objects, replacing earlier copies; return how many there are.

    Raises:
        UsageError: no address is set.
        TidemarkError: Kibana does not answer, or refuses an object.
    """
    settings = elasticsearch_settings(project)
    if settings.kibana_url is None:
        raise UsageError("TIDEMARK_ELASTICSEARCH_KIBANA_URL is not set; name the Kibana that gets the dashboard.")
    url = str(settings.kibana_url).rstrip("/")
    path = project.root / "monitoring" / "logs" / "kibana" / "tidemark.ndjson"
    try:
        answer = session(settings).post(
            f"{url}/api/saved_objects/_import?overwrite=true",
            # Kibana refuses a request without this header, as a browser would send from another site
            headers={"kbn-xsrf": "true"},
            files={"file": (path.name, path.read_bytes(), "application/ndjson")},
            timeout=_TIMEOUT_S,
        )
        result = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise TidemarkError(f"Kibana at {url} does not answer ({type(error).__name__}); run this again.") from None
    if not answer.ok or not result.get("success"):
        reasons = [f"{each.get('id')}: {each.get('error', {}).get('type')}" for each in result.get("errors", ())]
        said = "; ".join(reasons) or result.get("message", answer.status_code)
        raise TidemarkError(f"Kibana at {url} refuses the dashboard: {said}")
    return int(result["successCount"])
