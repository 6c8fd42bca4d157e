"""Prints what Meltano gives each plugin of the project in the working directory; any use of the network ends it.

Reads variables, as JSON, and prints a JSON list: what the plugins get without them, and with them. It is a program of
its own because Meltano keeps what it read of a project, and an audit hook stays as long as its process.
"""

# ruff: noqa: T201 - it prints for another program

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any

# of this machine and of Meltano itself; MELTANO_EXTRACT_* and the like repeat the others
_NOT_THE_PLUGINS = ("MELTANO_", "PATH", "VIRTUAL_ENV", "LOGGING_CONF_FILE", "SINGER_SDK_LOG_CONFIG", "PYTHON")


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """End the process at the first name that is looked up and the first connection."""
    if event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"}:
        print(f"{event}: {arguments}", file=sys.stderr)
        os._exit(3)


async def both(root: Path, variables: dict[str, str]) -> list[dict[str, Any]]:
    """Return what the plugins get without these variables, and with them."""
    from meltano.core.db import project_engine  # noqa: PLC0415
    from meltano.core.migration_service import MigrationService  # noqa: PLC0415
    from meltano.core.project import Project  # noqa: PLC0415

    project = Project.find(root)
    project.activate_environment("dev")
    engine, make_session = project_engine(project)
    MigrationService(engine).upgrade(silent=True)
    with closing(make_session()) as session:
        without = await plugins(project, session)
        os.environ.update(variables)
        return [without, await plugins(project, session)]


async def plugins(project: Any, session: Any) -> dict[str, Any]:
    """Return what each plugin is to Meltano, and what it is started with."""
    from meltano.core.plugin_invoker import invoker_factory  # noqa: PLC0415

    found = {}
    for plugin in project.plugins.plugins():
        invoker = invoker_factory(project, plugin)
        async with invoker.prepared(session):
            found[plugin.name] = {
                "label": plugin.label,
                "pip_url": plugin.pip_url,
                "executable": str(invoker.exec_path()),
                "capabilities": sorted(plugin.capabilities),
                "commands": {name: command.args for name, command in plugin.all_commands.items()},
                "extras": {name: each for name, each in invoker.plugin_config_extras.items() if "." not in name},
                "config": invoker.plugin_config_processed,
                "env": {
                    name: str(value)
                    for name, value in invoker.env().items()
                    if not name.startswith(_NOT_THE_PLUGINS) and os.environ.get(name) != value
                },
            }
    return found


def main() -> None:
    """Print them, with the project's directory as `$PROJECT`."""
    root = Path.cwd().resolve()
    variables = json.load(sys.stdin)
    sys.addaudithook(refuse_network)
    with redirect_stdout(sys.stderr):
        found = asyncio.run(both(root, variables))
    print(json.dumps(found).replace(str(root), "$PROJECT"))


if __name__ == "__main__":
    main()
