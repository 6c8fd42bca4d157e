"""The command `tidemark-airflow`: Airflow's own command line in this project's environment, with three more commands.

tidemark-airflow serve           run all of Airflow on this machine, until it is stopped
tidemark-airflow prepare         update the metadata's tables and the pools
tidemark-airflow source-pools    create the pools of sources that were added
tidemark-airflow …               the same as `airflow …`
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from tidemark_airflow import environment
from tidemark_airflow.errors import UsageError


def main() -> NoReturn:
    """Run a command."""
    try:
        # before the first import of Airflow, which reads its settings then and creates files where they say
        # serve and prepare create and alter tables under locks; such locks belong to a session, so no pooler
        pooled = sys.argv[1:2] not in (["serve"], ["prepare"])
        os.environ.update(environment.compose(environment.project_root(), os.environ, pooled=pooled))
        match sys.argv[1:]:
            case ["serve"]:
                environment.refuse_without_secrets(os.environ)
                from tidemark_airflow.serve import serve  # noqa: PLC0415

                sys.exit(serve())
            case ["prepare"]:
                from tidemark_airflow.prepare import prepare  # noqa: PLC0415

                prepare()
                sys.exit()
            case ["source-pools"]:
                from tidemark_airflow.prepare import make_pools  # noqa: PLC0415

                make_pools()
                sys.exit()
            case arguments:
                airflow = str(Path(sys.executable).with_name("airflow"))
                os.execv(airflow, [airflow, *arguments])  # noqa: S606
    except UsageError as error:
        sys.exit(f"error: {error}")
