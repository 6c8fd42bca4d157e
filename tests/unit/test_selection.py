"""The streams that Meltano selects, as its plugins learn them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from meltano.core.plugin.singer.catalog import ListSelectedExecutor, MetadataExecutor, select_metadata_rules

from singer_postgres.core.source.selected_streams import selected_streams
from tidemark.inspect.check import streams

IDS = ["public-orders", "public-order_items", "public-a.b", "crm-contacts", "crm-Contacts"]
SELECTS = [
    ["public-orders.*"],
    ["public-orders.id", "!public-orders.note"],
    ["public-*.*", "!public-order_*.*"],
    ["public-orders"],
    [r"public-a\.b.*"],
    ["*.*"],
    ["crm-[cC]ontacts.*"],
    ["public-gone.*"],
]


def told(select, only=(), metadata=None):
    """Return a plugin's selection for an environment."""
    return selected_streams(
        {
            "MELTANO_EXTRACT__SELECT": json.dumps(select),
            "MELTANO_EXTRACT__SELECT_FILTER": json.dumps(list(only)),
            "MELTANO_EXTRACT__METADATA": json.dumps(metadata or {}),
        }
    )


@pytest.mark.parametrize("select", SELECTS, ids=str)
def test_no_stream_that_meltano_selects_is_left_out(select):
    catalog = {"streams": [{"tap_stream_id": name, "metadata": [{"breadcrumb": [], "metadata": {}}]} for name in IDS]}
    MetadataExecutor([*select_metadata_rules(["!*.*"]), *select_metadata_rules(select)]).visit(catalog)
    selected = [
        each["tap_stream_id"] for each in catalog["streams"] if ListSelectedExecutor.node_selection(each["metadata"][0])
    ]
    found = told(select)
    assert {name for name in IDS if found.may_match(name)} >= set(selected)
    assert found.missing(selected) == [name for name in ["public-gone"] if select == ["public-gone.*"]]


def test_streams_that_metadata_selects_are_among_them():
    assert told(["a-b.*"], metadata={"crm-*": {"selected": True}}).may_match("crm-contacts")
    assert not told(["a-b.*"], metadata={"crm-*": {"replication-method": "FULL_TABLE"}}).may_match("crm-contacts")


def test_a_stream_that_the_run_leaves_out_is_not_reported_missing():
    assert told(["public-gone.*", "public-orders.*"], only=["public-orders"]).missing(["public-orders"]) == []
    assert told(["public-gone.*", "!public-gone.*"]).missing([]) == []
    assert told(["public-gone.*"], only=["!public-gone"]).missing([]) == []
    assert told(["public-gone.*"], only=["public-*"]).missing([]) == ["public-gone"]
    assert selected_streams({}) is None


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's command line is looked at on Linux alone")
def test_a_listing_of_selectable_streams_gets_all_streams():
    child = (
        "from singer_postgres.core.source.selected_streams import selected_by_run; print(selected_by_run() is not None)"
    )
    parent = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    env = {
        **os.environ,
        "MELTANO_EXTRACT__SELECT": '["public-orders.*"]',
        "MELTANO_EXTRACT__USE_CACHED_CATALOG": "false",
    }

    def asked(*arguments, **more):
        command = [sys.executable, "-c", parent, "meltano", *arguments]
        return subprocess.run(command, env={**env, **more}, capture_output=True, text=True, check=True).stdout.strip()

    assert asked("--environment", "dev", "run", "tap-postgres", "target-postgres") == "True"
    assert asked("select", "tap-postgres", "--list", "--all") == "False"
    assert asked("invoke", "tap-postgres", "--discover") == "False"
    assert asked("run", "tap-postgres", "target-postgres", MELTANO_EXTRACT__USE_CACHED_CATALOG="true") == "False"


@pytest.mark.parametrize("select", SELECTS)
def test_the_rules_of_a_stream_are_those_that_meltano_finds_in_their_order(select):
    rules = [*select_metadata_rules(["!*.*"]), *select_metadata_rules(select), *select_metadata_rules(["crm-*.id"])]
    of_stream = streams._by_stream(rules)
    for name in IDS:
        assert of_stream(name) == [rule for rule in rules if rule.match(name)]
