"""The Singer SDK's own suite of tests for targets."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from singer_sdk.exceptions import InvalidRecord
from singer_sdk.testing import get_target_test_class
from singer_sdk.testing.suites import SingerTestSuite
from singer_sdk.testing.target_tests import (
    TargetMultipleStateMessages,
    TargetPrimaryKeyUpdates,
    TargetRecordMissingRequiredProperty,
)

from conftest import CONNECTION
from singer_postgres.target.target import TargetPostgres


class RecordMissingRequiredPropertyIsRefused(TargetRecordMissingRequiredProperty):
    """The SDK's test expects nothing; a target that validates records refuses this one."""

    def test(self) -> None:
        """Run test."""
        with pytest.raises(InvalidRecord):
            super().test()


class MultipleStateMessages(TargetMultipleStateMessages):
    """The SDK's test compares with lines of text what its runner has read from JSON already."""

    def test(self) -> None:
        """Run test."""
        self.runner._clean_sync_output = str.splitlines
        super().test()


def config(**settings: Any) -> dict[str, Any]:
    schema = f"test_{uuid.uuid4().hex[:12]}"
    # PostgreSQL has no NUL in text, and the suite sends some
    return {**CONNECTION, "default_target_schema": schema, "sanitize_null_text_characters": True, **settings}


def suite(*tests: type, **settings: Any) -> type:
    """Return the SDK's tests and `tests`; no variable and no .env of whoever runs them sets anything."""
    suites = [SingerTestSuite(kind="target", tests=list(tests))]
    return get_target_test_class(
        TargetPostgres, config=config(**settings), custom_suites=suites, parse_env_config=False
    )


class TestWithStandardSettings(suite(TargetPrimaryKeyUpdates, RecordMissingRequiredPropertyIsRefused)):
    """As most run it."""


# the size of batches that the states of the SDK's file are meant for
@pytest.mark.long
class TestInSmallBatches(suite(MultipleStateMessages, batch_size_rows=3)):
    """Many transactions, and a state as soon as it holds."""


@pytest.mark.long
class TestWithoutMetadataOrValidation(
    suite(
        TargetRecordMissingRequiredProperty, add_record_metadata=False, activate_version=False, validate_records=False
    )
):
    """As little as can be."""
