"""Refuses settings that can't be used: unknown names, values of a wrong form, and values without effect here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_sdk.plugin_base import JSONSchemaValidator

from singer_postgres.core import setting_forms, setting_names
from singer_postgres.core.errors import SettingInvalidError

if TYPE_CHECKING:
    import logging
    from collections.abc import Collection, Iterable, Mapping

    from singer_sdk.plugin_base import PluginBase


class CheckedSettings:
    """Has a plugin refuse values of a wrong form in one line, which names the setting, the value and the form."""

    def _validate_config(self: PluginBase, *, raise_errors: bool = True) -> list[str]:  # noqa: ARG002
        """Fill in the defaults, and refuse what the plugin can't use, also while it discovers streams.

        Raises:
            SettingInvalidError: a value has the wrong form.
        """
        self.append_builtin_config(self.config_jsonschema)
        errors = JSONSchemaValidator(self.config_jsonschema).iter_errors(self._config)
        if why := setting_forms.faults(errors, self.config_jsonschema["properties"]):
            raise SettingInvalidError(why)
        return []


def check(
    config: Mapping[str, Any],
    properties: Mapping[str, Any],
    without_effect: Mapping[tuple[str, str | None], str],
) -> None:
    """Refuse unknown settings, and settings that other plugins honour but this one doesn't.

    Args:
        properties: the settings in the plugin's JSON schema.
        without_effect: the advice, by setting and value without effect; value None stands for any true value.

    Raises:
        SettingInvalidError: a setting would have no effect, or its name is unknown.
    """
    for (name, value), advice in without_effect.items():
        if config.get(name) and value in (None, config[name]):
            msg = f"{name} is set to {config[name]!r}, and would have no effect: {advice}."
            raise SettingInvalidError(msg)
    known = [name for name, _ in setting_names.settings(properties)]
    if unknown := setting_names.unknown(config, known):
        each = " ".join(f"{name} is not a setting{f'; {meant} is one' if meant else ''}." for name, meant in unknown)
        msg = f"{each} Correct or remove {'it' if len(unknown) == 1 else 'them'}."
        raise SettingInvalidError(msg)


def check_names(named: Iterable[tuple[str, str]], known: Collection[str], logger: logging.Logger) -> None:
    """Refuse misspelt stream names. Warn about other unknown ones, which a tap may have inherited from its parent.

    Args:
        named: settings of `setting_names.BY_STREAM`, each with a stream that it names.
        known: the names of all streams of the source.

    Raises:
        SettingInvalidError: a name is very similar to that of a stream.
    """
    for setting, stream in named:
        if stream in known:
            continue
        if meant := setting_names.meant_stream(stream, known):
            msg = (
                f"{setting} names {stream}, which the source does not have; {meant} is one. Correct {setting}; if "
                "this tap inherits it from another one, give this tap its own."
            )
            raise SettingInvalidError(msg)
        logger.warning("%s names %s, which the source does not have; that has no effect", setting, stream)
