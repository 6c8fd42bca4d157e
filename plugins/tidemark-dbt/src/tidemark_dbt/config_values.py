"""Refuses ref() and source() inside config() by one clear line; dbt would end with a traceback of msgpack's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.adapters.base import BaseRelation
from dbt.context.providers import ParseConfigObject
from dbt.exceptions import CompilationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_transform = ParseConfigObject._transform_config  # noqa: SLF001


def refuse_relations() -> None:
    """Have dbt check the values of each config() while it reads the models."""
    ParseConfigObject._transform_config = _checked  # noqa: SLF001


def _checked(config: ParseConfigObject, values: dict[str, Any]) -> Any:
    for name, value in values.items():
        if any(isinstance(each, BaseRelation) for each in _parts(value)):
            message = (
                f"{name} in config() has a ref() or source(), which dbt can't store there. Write the name as text, "
                "as in changed_by=[{'model': 'stg_orders', 'key': 'order_id'}], or 'raw.orders' for a source."
            )
            raise CompilationError(message, node=config.model)
    return _transform(config, values)


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value and all values inside it."""
    yield value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        for each in value:
            yield from _parts(each)
