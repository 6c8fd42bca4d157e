"""Loads changes with dlt: `python dlt_follow.py JSON`, in an environment with dlt and its pg_replication."""

import json
import sys

import dlt
from pg_replication import replication_resource

what = json.loads(sys.argv[1])
changes = replication_resource(
    what["slot"],
    what["publication"],
    credentials=what["source"],
    target_batch_size=100_000,
    columns={
        "items": {
            "unit_price": {"precision": 12, "scale": 2},
            "discount": {"precision": 12, "scale": 2},
        }
    },
)
pipeline = dlt.pipeline(
    "peer_dlt",
    destination=dlt.destinations.postgres(what["warehouse"]),
    dataset_name="raw",
    pipelines_dir=what["pipelines"],
)
pipeline.run(changes, loader_file_format="csv").raise_on_failed_jobs()
