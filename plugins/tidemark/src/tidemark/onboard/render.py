"""Renders the templates beside it. Their tags are << >> and <% %>, as what they write is Jinja itself."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from tidemark.onboard import escaping

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    # what is written is SQL and YAML, which the templates escape themselves
    environment = Environment(  # noqa: S701
        loader=PackageLoader("tidemark.onboard"),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["described"] = _described
    environment.filters["flow"] = _flow
    environment.filters["scalar"] = lambda text: escaping.yaml_text(escaping.jinja(text))
    return environment


def render(template: str, **values: Any) -> str:
    """Return a template's text."""
    return _environment().get_template(template).render(**values)


def _described(text: str, indent: int) -> str:
    """Return a description, in which Jinja is escaped already, as the value of a key that is indented by that much."""
    return escaping.yaml_text(text, inside=indent, before=len("description: "))


def _flow(values: list[str], indent: int, name: str) -> str:
    """Return texts as a YAML list: on one line if there is room, or else one below the other."""
    scalars = [escaping.yaml_text(escaping.jinja(value)) for value in values]
    scalars = [each if each.startswith('"') or not set(each) & set(",{}[]") else f'"{each}"' for each in scalars]
    line = f"[{', '.join(scalars)}]"
    if indent + len(name) + 2 + len(line) <= escaping.WIDTH:
        return line
    return "".join(f"\n{' ' * (indent + 2)}- {each}" for each in scalars)
