"""Runs a Singer command. Each failure ends in one line and a non-zero exit status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import simplejson

from singer_postgres.core.driver_errors import log_fields
from singer_postgres.core.errors import SettingInvalidError, one_line
from singer_postgres.singer import log_records

if TYPE_CHECKING:
    from singer_sdk.plugin_base import PluginBase

    from singer_postgres.core.driver_errors import Side


def run(plugin: type[PluginBase], *, side: Side, expected: tuple[type[BaseException], ...]) -> int:
    """Run `plugin` with this process's arguments, and return the exit status.

    Args:
        plugin: the tap or target.
        side: the side whose server it talks to.
        expected: errors that a user can cause. Their message is enough; `--debug` adds the traceback.
    """
    log_records.install()
    debug = "--debug" in sys.argv
    arguments: list[Any] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        # click's own exit status, for example for invalid settings
        return plugin.cli(arguments, standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # the process that read our output has ended, and has logged why
        return 1
    except simplejson.JSONDecodeError as error:
        plugin.logger.error(  # noqa: TRY400 - as below
            "The file that --config, --catalog or --state names is not JSON: %s",
            one_line(error),
            exc_info=debug,
            extra={"error": SettingInvalidError().fields()},
        )
        return 1
    except expected as error:
        extra = log_fields(error, side=side)
        plugin.logger.error("%s", one_line(error), exc_info=debug, extra=extra)  # noqa: TRY400 - the line is for people
        return getattr(error, "status", 1)
