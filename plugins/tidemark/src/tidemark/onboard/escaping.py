"""Writes the source's names and comments into dbt's files: as YAML, and so that Jinja reads them as text."""

from __future__ import annotations

import re
import textwrap

WIDTH = 118
# words that YAML 1.1 reads as something else than text
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", ""})
_PLAIN = re.compile(r"[A-Za-z_(][\w ()./+&;,'%-]*[\w().;%]|[A-Za-z_]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def jinja(text: str) -> str:
    """Return a text that Jinja renders as `text`."""
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", text)


def yaml_text(text: str, *, inside: int = 0, before: int = 0) -> str:
    """Return a text as a YAML scalar.

    Args:
        inside: how deep its key is indented.
        before: how long the key is, with the colon and the space. With 0, the scalar stays on one line, as in a list.
    """
    if _is_plain(text):
        if not before or inside + before + len(text) <= WIDTH:
            return text
        if re.fullmatch(r"\S+( \S+)*", text):
            indent = " " * (inside + 2)
            return ">-\n" + textwrap.fill(
                text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
            )
    scalar = '"' + "".join(_escaped(character) for character in text) + '"'
    return scalar if not before or inside + before + len(scalar) <= WIDTH else _broken(scalar, inside + 2)


def _is_plain(text: str) -> bool:
    # digits with letters between them can be a number, as in 1e3, so a plain scalar begins with a letter
    return bool(_PLAIN.fullmatch(text)) and text.lower() not in _WORDS and ": " not in text and "  " not in text


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable() and character != "\ufeff":
        return character
    code = ord(character)
    if code <= 0xFF:  # noqa: PLR2004
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004


def _broken(scalar: str, indent: int) -> str:
    """Break a double-quoted scalar into lines. A backslash before the break keeps YAML from adding a space."""
    lines, line = [], ""
    for part in re.findall(r"\\(?:x..|u.{4}|U.{8}|.)|[^\\\s]+|\s", scalar):
        # a long part, such as an address, stays as it is: it has no place to break at
        if line and not part.isspace() and len(line) + len(part) > WIDTH - indent - 1:
            lines.append(line)
            line = ""
        line += part
    lines.append(line)
    return ("\\\n" + " " * indent).join(lines)
