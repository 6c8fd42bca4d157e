"""Loads with dlt: `python dlt_load.py JSON`, in an environment with dlt."""

import json
import sys

import dlt
from dlt.sources.sql_database import sql_database

what = json.loads(sys.argv[1])
source = sql_database(
    what["source"], schema="public", table_names=list(what["keys"]), backend=what["backend"], chunk_size=200_000
)
for table, key in what["keys"].items():
    source.resources[table].apply_hints(
        primary_key=key, write_disposition="merge", incremental=dlt.sources.incremental("updated_at")
    )
pipeline = dlt.pipeline(
    f"bench_{what['backend']}",
    destination=dlt.destinations.postgres(what["warehouse"]),
    dataset_name=what["schema"],
    pipelines_dir=what["pipelines"],
)
pipeline.run(source, loader_file_format="csv").raise_on_failed_jobs()
