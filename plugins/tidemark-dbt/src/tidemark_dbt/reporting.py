"""Reports the result of each model and test, and the code of dbt's failure, to the run that started dbt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbt.artifacts.schemas.results import FreshnessStatus, NodeStatus
from dbt.exceptions import CompilationError, DbtProfileError, DbtProjectError, ParsingError

from singer_postgres.core import errors, run_events
from singer_postgres.core.driver_errors import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

# dbt's events for the end of a node: https://docs.getdbt.com/reference/events-logging
_DONE = frozenset({"LogModelResult", "LogSnapshotResult", "LogSeedResult", "LogTestResult", "LogFreshnessResult"})
_SKIPPED = frozenset({"SkippingDetails", "LogSkipBecauseError"})
_OF_TESTS = {"pass": "PASS", "warn": "WARN", "fail": "FAIL", "error": "ERROR"}
_OF_LEVELS = {"error": "ERROR", "warn": "WARN"}
_PROJECT = (CompilationError, DbtProfileError, DbtProjectError, ParsingError)


def on_event(message: Any) -> None:
    """Write a node's result from one of dbt's events; dbt calls this for each event.

    Args:
        message: dbt's EventMsg, with `info` and `data`.
    """
    name, data = message.info.name, message.data
    if name in _SKIPPED:
        run_events.emit(node={"index": data.index, "total": data.total, "status": "SKIP", "what": data.node_name})
    elif name in _DONE:
        status = _OF_TESTS.get(data.status) if name == "LogTestResult" else None
        status = status or _OF_LEVELS.get(str(message.info.level), "OK")
        total = data.num_models if name == "LogTestResult" else data.total
        run_events.emit(node={"index": data.index, "total": total, "status": status, "what": _what(name, data)})


def _what(name: str, data: Any) -> str:
    """Return a node's name as in dbt's own lines."""
    if name == "LogFreshnessResult":
        stale = "STALE " if data.status == "error" else ""
        return f"{stale}freshness of {data.source_name}.{data.table_name}"
    if name == "LogTestResult":
        return str(data.name)
    return str(data.description) if name != "LogSeedResult" else f"seed file {data.schema}.{data.relation}"


def failed_results(results: Iterable[Any]) -> None:
    """Write the code of a failed run, from its results."""
    failed = [each for each in results if str(each.status) in {NodeStatus.Error, NodeStatus.Fail, "runtime error"}]
    kind: type[errors.CodedError]
    if any(isinstance(each.status, FreshnessStatus) for each in failed):
        kind = errors.SourceStaleError
    elif failed and all(each.node.resource_type in {"test", "unit_test"} for each in failed):
        kind = errors.TestsFailedError
    else:
        kind = errors.ModelsFailedError
    _emit(kind, "; ".join(errors.one_line(f"{each.node.name}: {each.message}") for each in failed))


def failed(error: BaseException) -> None:
    """Write the code of an error that ended dbt before, or without, any result."""
    _emit(_kind(error), errors.one_line(error))


def _kind(error: BaseException) -> type[errors.CodedError]:
    if isinstance(coded := getattr(error, "kind", None), type):
        return coded
    if isinstance(error, _PROJECT):
        return errors.ProjectInvalidError
    found: BaseException | None = error
    while found is not None:
        kind = kind_of(found, side="warehouse")
        if kind is not errors.CodedError:
            return kind
        found = found.__cause__ or found.__context__
    return errors.CodedError


def _emit(kind: type[errors.CodedError], message: str) -> None:
    run_events.emit(error={**kind().fields(), "message": message})
