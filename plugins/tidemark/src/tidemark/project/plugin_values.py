"""The settings of a tap or target as Meltano gives them to it. Values of a wrong form are refused, as the plugin would.

Meltano itself ends with an error that names no setting, where a variable is not of the setting's kind.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from singer_postgres.core import setting_forms
from tidemark.errors import UsageError
from tidemark.project import meltano_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltano.core.plugin.settings_service import PluginSettingsService
    from meltano.core.project import Project as MeltanoProject
    from sqlalchemy.orm import Session

_KINDS = {"integer": "a whole number", "object": "an object", "array": "a list"}


def read(meltano: MeltanoProject, name: str, session: Session | None) -> dict[str, Any]:
    """Return the settings of a tap or target of ours, nested as Meltano nests them.

    Raises:
        UsageError: a value has a wrong form, or Meltano's files can't be read.
    """
    from meltano.core.error import MeltanoError  # noqa: PLC0415

    found, service = meltano_project.plugin(meltano, name)
    schema = _schema("tap" if name.startswith("tap-") else "target")
    try:
        settings = service.as_dict(extras=False, session=session)
    except (MeltanoError, ValueError) as error:
        if others := " ".join(_of_another_kind(service, schema["properties"], session)):
            raise UsageError(others) from error
        raise meltano_project.unreadable(error) from error
    values: dict[str, Any] = found.process_config(settings)
    if why := setting_forms.faults(_errors(schema, values), schema["properties"]):
        raise UsageError(why)
    return values


def _of_another_kind(
    service: PluginSettingsService, properties: dict[str, Any], session: Session | None
) -> Iterator[str]:
    """Yield what is wrong with each text that Meltano can't turn into a value of its setting's kind."""
    from meltano.core.settings_store import SettingValueStore  # noqa: PLC0415

    manager = SettingValueStore.AUTO.manager(service, session=session)
    for definition in service.definitions(extras=False):
        value, found = manager.get(definition.name, setting_def=definition)
        try:
            definition.cast_value(value)
        except ValueError:
            wanted = _KINDS.get(str(definition.kind.value) if definition.kind else "", "another value")
            setting = properties.get(definition.name, {})
            if "env_var" in found and "number" in setting.get("type", ()):
                # Meltano takes no other number from a text
                wanted += " in a variable (a fraction can be in the plugin's `config`)"
            yield setting_forms.fault([definition.name], value, setting, wanted)


@functools.cache
def _schema(kind: str) -> dict[str, Any]:
    text = (resources.files("tidemark.release") / "settings" / f"{kind}-postgres.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _errors(schema: dict[str, Any], values: dict[str, Any]) -> Iterator[Any]:
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]  # noqa: PLC0415

    # Meltano leaves out what is not set
    return iter(validator_for(schema)(schema).iter_errors({k: each for k, each in values.items() if each is not None}))
