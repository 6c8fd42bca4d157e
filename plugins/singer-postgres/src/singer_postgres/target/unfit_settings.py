"""Refuses settings of the target that do not apply to streams which arrive as chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SettingInvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singer_postgres.core.wire import Table


def refuse_maps(config: Mapping[str, Any], stream: str) -> None:
    """Refuse maps, which would change records.

    Raises:
        SettingInvalidError: the target has maps.
    """
    for setting in ("stream_maps", "flattening_enabled"):
        if config.get(setting):
            msg = (
                f"{stream} arrives as chunks, and {setting} of this target does not apply to them. "
                "Set use_copy of the tap to false, or set the maps in the tap."
            )
            raise SettingInvalidError(msg)


def refuse_to_replace(config: Mapping[str, Any], stream: str, table: Table) -> None:
    """Refuse to keep earlier rows of a stream that is read in full.

    Raises:
        SettingInvalidError: the target is to keep them.
    """
    for setting in ("activate_version", "process_activate_version_messages"):
        if table.method == "FULL_TABLE" and config.get(setting) is False:
            msg = (
                f"{stream} is read in full and arrives as chunks, which replace its rows, but {setting} "
                "is off: make the stream INCREMENTAL, or set use_copy of the tap to false."
            )
            raise SettingInvalidError(msg)
