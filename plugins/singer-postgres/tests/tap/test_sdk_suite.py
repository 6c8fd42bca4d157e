"""The Singer SDK's own suite of tests for taps."""

from __future__ import annotations

from typing import Any

from singer_sdk.testing import SuiteConfig, get_tap_test_class

from conftest import SCHEMA, make_source, settings
from singer_postgres.tap.tap import TapPostgres

# the suite reads the catalog where it is defined
make_source()


def suite(*, everything: dict[str, Any] | None = None, **config: Any) -> type:
    """Return the SDK's tests; no variable and no .env of whoever runs them sets anything.

    Args:
        everything: further metadata of the table of that name.
        config: further settings of the tap.
    """
    catalog = TapPostgres(config=settings(**config)).catalog_dict
    for stream in catalog["streams"]:
        own = everything if stream["tap_stream_id"] == f"{SCHEMA}-everything" else None
        stream["replication_method"] = (own or {}).get("replication-method", "FULL_TABLE")
        stream["replication_key"] = (own or {}).get("replication-key")
        for entry in stream["metadata"]:
            entry["metadata"] |= {"selected": True, **((own or {}) if not entry["breadcrumb"] else {})}
    return get_tap_test_class(
        TapPostgres,
        config=settings(**config),
        catalog=catalog,
        suite_config=SuiteConfig(max_records_limit=100),
        parse_env_config=False,
    )


class TestAsRecords(suite()):
    """All streams read whole, as records."""


# the SDK's suite makes trial runs only, and those are records whatever use_copy is
class TestWithCopySwitchedOn(suite(use_copy=True)):
    """A tap that is set up to send chunks."""


class TestIncremental(suite(everything={"replication-method": "INCREMENTAL", "replication-key": "at"})):
    """A stream that goes by its replication key."""


class TestMaskedAndMapped(
    suite(
        masks={f"{SCHEMA}-everything": {"note": "sha256", "short": "redact", "raw": "null"}},
        mask_secret="of this test",
        stream_maps={f"{SCHEMA}-keyless": {"seen": "seen + 1"}},
    )
):
    """Columns that leave the source changed, and columns that leave the tap changed."""
