"""Removes passwords and other secrets from log lines. It reads no environment but the one that it is given."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HIDDEN = "***"
# variables whose values must not be in any log
_NAMES = re.compile(r"PASSWORD|PASSPHRASE|SECRET|TOKEN|PRIVATE_KEY|API_KEY|FERNET_KEY|WEBHOOK_URL", re.IGNORECASE)
# a shorter value is a word that other lines have as well
_SHORTEST = 6
# passwords that are recognised by what is before them: in a URL, in a connection string, in SQL
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(://[^\s:/@]*:)[^\s/@]+(?=@)",
        r"""(\b(?:ssl)?(?:password|passwd|pwd)["']?\s*[=:]\s*)(?:'[^']*'|"[^"]*"|[^\s,;&'"]+)""",
        r"(\bpassword\s+)'(?:[^']|'')*'",
    )
)

# fields of a line that hold our own words, ids and times
_OURS = frozenset(
    {
        "@timestamp",
        "ecs.version",
        "event.action",
        "event.code",
        "event.dataset",
        "event.id",
        "event.outcome",
        "log.level",
        "service.name",
        "tidemark.run_id",
    }
)


class Redactor:
    """Replaces the secrets of one environment, and whatever looks like a password."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Take the environment variables of the processes whose lines are written."""
        values = {form for value in _values(variables) for form in _forms(value)}
        longest_first = sorted(values, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first))) if values else None

    def __call__(self, value: Any) -> Any:
        """Return a line, or a text, with its secrets hidden."""
        if isinstance(value, dict):
            # a password may be a word such as `postgres`
            return {name: each if name in _OURS else self._hidden(each) for name, each in value.items()}
        return self._hidden(value)

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {name: self._hidden(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._hidden(each) for each in value]
        return value

    def _text(self, text: str) -> str:
        if self._values:
            text = self._values.sub(HIDDEN, text)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\g<1>{HIDDEN}", text)
        return text


def _values(variables: Mapping[str, str]) -> Iterator[str]:
    for name, value in variables.items():
        if _NAMES.search(name):
            yield value
        if "://" in value and (password := _password(value)):
            yield password


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None


def _forms(value: str) -> Iterator[str]:
    """Yield the value as it is, as in a URL, and as in JSON."""
    for form in (value, unquote(value), json.dumps(value)[1:-1]):
        if len(form) >= _SHORTEST:
            yield form
