"""Reads messages line by line, and rejects an invalid line with its number before any of it is processed."""

from __future__ import annotations

from collections import Counter
from typing import IO, TYPE_CHECKING, Any

from singer_sdk.singerlib.encoding import SimpleSingerReader
from singer_sdk.singerlib.exceptions import InvalidInputLine
from singer_sdk.singerlib.json import deserialize_json

from singer_postgres.core.errors import MessageInvalidError

if TYPE_CHECKING:
    from collections.abc import Callable

# https://hub.meltano.com/singer/spec: the required members of each message, with their types
_REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "SCHEMA": {"stream": str, "schema": dict},
    "RECORD": {"stream": str, "record": dict},
    "BATCH": {"stream": str, "encoding": dict, "manifest": list},
    "ACTIVATE_VERSION": {"stream": str, "version": int},
    "STATE": {"value": (dict, type(None))},
}
_SHOWN_CHARACTERS = 120


class InvalidMessageError(MessageInvalidError, InvalidInputLine):
    """An input line is not a Singer message. It is the SDK's error for this, with a message on one line."""


class MessageReader(SimpleSingerReader):
    """The SDK's reader, with errors that a person can understand."""

    def process_lines(
        self, file_input: IO[str] | None, callbacks: dict[str, Callable[[dict[str, Any]], None]]
    ) -> Counter[str]:
        """Pass each message to the callback of its type, and return the number of messages of each type.

        Raises:
            InvalidMessageError: a line is not a valid message.
        """
        counts: Counter[str] = Counter()
        number = 0
        try:
            for number, line in enumerate(file_input or self.default_input, 1):
                message = _message(number, line)
                kind = message["type"]
                callbacks[kind](message)
                counts[kind] += 1
        except UnicodeDecodeError as error:
            msg = f"Input line {number + 1}, or one soon after, is not UTF-8: {error.reason}. Correct the tap."
            raise InvalidMessageError(msg) from error
        return counts


def _message(number: int, line: str) -> dict[str, Any]:
    try:
        message = deserialize_json(line)
    except ValueError as error:
        cut = "" if line.endswith("\n") else ", and was cut off"
        raise _refusal(number, f"not valid JSON ({error}){cut}", line) from error
    if not isinstance(message, dict):
        raise _refusal(number, "not a JSON object", line)
    required = _REQUIRED.get(message.get("type", ""))
    if required is None:
        raise _refusal(number, f"of type {message.get('type')!r}, not one of {', '.join(_REQUIRED)}", line)
    for name, kind in required.items():
        if name not in message:
            raise _refusal(number, f"a {message['type']} message without `{name}`", line)
        if not isinstance(message[name], kind):
            raise _refusal(number, f"a {message['type']} message whose `{name}` is {message[name]!r}", line)
    if message["type"] == "SCHEMA" and not isinstance(message["schema"].get("properties"), dict):
        raise _refusal(number, f"a schema of {message['stream']} without `properties`", line)
    return message


def _refusal(number: int, what: str, line: str) -> InvalidMessageError:
    shown = line.strip()
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}…"
    return InvalidMessageError(
        f"Input line {number} is {what}: {shown!r}. Is the upstream process a Singer tap, and did it exit early?"
    )
