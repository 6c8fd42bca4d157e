"""Elasticsearch, as far as logs need it: bulk requests, the index template, the lifecycle policy and old indices.

OpenSearch answers all of it too, except the lifecycle policy.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import requests

from tidemark.errors import TidemarkError, UsageError
from tidemark.logs.fields import INDEX, content_id, index_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tidemark.logs.settings import ElasticsearchSettings

_TIMEOUT_S = 60
_ERROR = 300
_ABSENT = 404
# Elasticsearch refuses a whole request if an id is longer than 512 bytes
_LONGEST_ID = 128
# an index of ours; a copy that somebody keeps under a longer name is theirs
_DAILY = re.compile(rf"{re.escape(INDEX)}-\d{{4}}\.\d\d\.\d\d")
# statuses of one line that can't be stored like this, now or later, unless its index is what is refused
_REFUSED = frozenset({400, 413})


class AwayError(Exception):
    """Elasticsearch does not answer, or refuses everything. A later try may succeed."""


@dataclass(frozen=True)
class Document:
    """A line on its way."""

    index: str
    fields: dict[str, Any]
    encoded: bytes

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Document:
        """Return a line's document.

        Raises:
            ValueError: the line has no valid time stamp, or a value that JSON has no word for.
            KeyError: it has no time stamp, or no id.
        """
        index, identifier = index_of(fields), str(fields["event.id"])
        if not 0 < len(identifier) <= _LONGEST_ID:
            identifier = content_id(identifier)
        action = {"index": {"_index": index, "_id": identifier}}
        body = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        return cls(index, fields, f"{json.dumps(action)}\n{body}\n".encode(errors="replace"))


@dataclass(frozen=True)
class Result:
    """Whether a line is stored.

    Attributes:
        stored: it is stored and searchable.
        refused: why it can never be stored; None if it is stored or may be later.
        reason: why it is not stored.
    """

    stored: bool
    refused: bool = False
    reason: str = ""


class Elasticsearch:
    """A connection to Elasticsearch."""

    def __init__(self, settings: ElasticsearchSettings, definitions: Path) -> None:
        """Connect at the first request.

        Args:
            definitions: the directory of the index template and the lifecycle policy.

        Raises:
            UsageError: no address is set.
        """
        if settings.url is None:
            raise UsageError("TIDEMARK_ELASTICSEARCH_URL is not set; name the Elasticsearch that logs are sent to.")
        self.url = str(settings.url).rstrip("/")
        self._definitions = definitions
        self._keep_days = settings.keep_days
        self._session = session(settings)
        self._has_policies = True

    def prepare(self) -> None:
        """Install the lifecycle policy, if there are any, and the index template.

        Raises:
            AwayError: Elasticsearch does not answer.
            TidemarkError: it refuses the template.
        """
        self._has_policies = self._install_policy()
        template = json.loads((self._definitions / "template.json").read_text(encoding="utf-8"))
        if not self._has_policies:
            del template["template"]["settings"]["index.lifecycle.name"]
        answer = self._ask("PUT", f"/_index_template/{INDEX}", template)
        if answer.status_code in _REFUSED:
            raise TidemarkError(f"{self.url} refuses the index template {INDEX}: {_reason(answer)}")
        self._demand(answer)

    def _install_policy(self) -> bool:
        policy = json.loads((self._definitions / "policy.json").read_text(encoding="utf-8"))
        policy["policy"]["phases"]["delete"]["min_age"] = f"{self._keep_days}d"
        answer = self._ask("PUT", f"/_ilm/policy/{INDEX}", policy)
        # where there are no policies, no handler is found
        if answer.status_code in {400, 404, 405}:
            return False
        self._demand(answer)
        return True

    def is_empty(self) -> bool:
        """Return whether no line is stored at all."""
        return self._ask("GET", f"/_alias/{INDEX}").status_code == _ABSENT

    def store(self, documents: Sequence[Document]) -> list[Result]:
        """Store lines; return a result for each. A line that is stored already is replaced by itself.

        Raises:
            AwayError: nothing is known about any of these lines.
        """
        answer = self._ask("POST", "/_bulk", b"".join(document.encoded for document in documents))
        if answer.status_code in _REFUSED:
            # of the whole request: too large, or one line spoils it
            if len(documents) == 1 and not _is_about_the_index(_error(answer)):
                return [Result(stored=False, refused=True, reason=f"{answer.status_code} {_reason(answer)}")]
            if len(documents) == 1:
                raise AwayError(f"{self.url} answers {answer.status_code}: {_reason(answer)}")
            half = len(documents) // 2
            return [*self.store(documents[:half]), *self.store(documents[half:])]
        self._demand(answer)
        try:
            results = [_result(item["index"]) for item in answer.json()["items"]]
        except (ValueError, KeyError, TypeError):
            raise AwayError(f"{self.url} answers a bulk request with no result: {answer.text[:200]}") from None
        if len(results) != len(documents):
            raise AwayError(f"{self.url} answers {len(results)} results for {len(documents)} lines")
        return results

    def delete_old(self, today: date) -> list[str]:
        """Delete daily indices past their time, where no lifecycle policy does it; return their names.

        Raises:
            AwayError: Elasticsearch does not answer.
        """
        if self._has_policies:
            return []
        answer = self._ask("GET", f"/{INDEX}-*/_settings")
        oldest = f"{INDEX}-{today - timedelta(days=self._keep_days):%Y.%m.%d}"
        names = answer.json() if answer.ok else {}
        old = sorted(name for name in names if _DAILY.fullmatch(name) and name < oldest)
        for name in old:
            self._ask("DELETE", f"/{name}")
        return old

    def _demand(self, answer: requests.Response) -> None:
        """Raise an AwayError unless the answer is a success."""
        if answer.status_code >= _ERROR:
            raise AwayError(f"{self.url} answers {answer.status_code}: {_reason(answer)}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | bytes | None = None) -> requests.Response:
        is_bulk = isinstance(body, bytes)
        data = body if is_bulk or body is None else json.dumps(body)
        headers = {"Content-Type": "application/x-ndjson" if is_bulk else "application/json"}
        try:
            return self._session.request(method, self.url + path, data=data, headers=headers, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            raise AwayError(f"{self.url} does not answer ({type(error).__name__})") from None


def session(settings: ElasticsearchSettings) -> requests.Session:
    """Return a session with the login and the certificate authority."""
    made = requests.Session()
    if settings.api_key:
        made.headers["Authorization"] = f"ApiKey {settings.api_key.get_secret_value()}"
    elif settings.user:
        made.auth = (settings.user, settings.password.get_secret_value() if settings.password else "")
    if settings.ssl_certificate_authority:
        made.verify = str(settings.ssl_certificate_authority)
    return made


def _result(item: dict[str, Any]) -> Result:
    status = int(item["status"])
    if status < _ERROR:
        return Result(stored=True)
    error = item.get("error") or {}
    reason = f"{error.get('type')}: {error.get('reason')}" if isinstance(error, dict) else str(error)
    cause = error.get("caused_by") if isinstance(error, dict) else None
    if isinstance(cause, dict) and cause.get("reason"):
        reason += f" ({cause['reason']})"
    refused = status in _REFUSED and not _is_about_the_index(error)
    return Result(stored=False, refused=refused, reason=f"{status} {reason}")


def _is_about_the_index(error: object) -> bool:
    """Return whether an error says that the index can't be created now: the cluster has no room for more shards."""
    if not isinstance(error, dict):
        return False
    return error.get("type") == "validation_exception" or str(error.get("reason")).startswith("Validation Failed")


def _error(answer: requests.Response) -> object:
    try:
        return answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return None


def _reason(answer: requests.Response) -> str:
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
    return str(error.get("reason", error)) if isinstance(error, dict) else str(error)
