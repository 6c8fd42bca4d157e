"""Reports the result of each model and test, and the code of dbt's failure, to the run that started dbt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dbt.artifacts.schemas.results import FreshnessStatus, NodeStatus
from dbt.exceptions import CompilationError, DbtProfileError, DbtProjectError, ParsingError

from singer_postgres.core import errors, run_events, shared_causes
from singer_postgres.core.driver_errors import kind_of, missing_grant
from singer_postgres.core.wire import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# dbt's events for the end of a node: https://docs.getdbt.com/reference/events-logging
_DONE = frozenset({"LogModelResult", "LogSnapshotResult", "LogSeedResult", "LogTestResult", "LogFreshnessResult"})
_SKIPPED = frozenset({"SkippingDetails", "LogSkipBecauseError"})
_OF_TESTS = {"pass": "PASS", "warn": "WARN", "fail": "FAIL", "error": "ERROR"}
_OF_LEVELS = {"error": "ERROR", "warn": "WARN"}
_PROJECT = (CompilationError, DbtProfileError, DbtProjectError, ParsingError)
# how many causes a message has
_NAMED = 3
# lines of dbt's messages: what kind of error in which node, the place in its SQL, its file, the macros that were called
_ONLY_FOR_THE_LOG = re.compile(
    r"\s*(?:[A-Z]\w+ Error in .*\(.*\)|[A-Z]\w+ Error|LINE \d+:.*|\^|compiled code at .*|> (?:in|called by) .*)\s*$"
)


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


def failed_results(results: Iterable[Any], role: str | None) -> None:
    """Write the code of a failed run and what was wrong with each node, from its results.

    Args:
        role: the role that dbt connects as.
    """
    failed = [each for each in results if str(each.status) in {NodeStatus.Error, NodeStatus.Fail, "runtime error"}]
    kind: type[errors.CodedError]
    if any(_is_stale(each) for each in failed):
        kind = errors.SourceStaleError
    elif any(isinstance(each.status, FreshnessStatus) for each in failed):
        kind = errors.PermissionDeniedError if "permission denied" in str(failed) else errors.DatabaseError
    elif failed and all(each.node.resource_type in {"test", "unit_test"} for each in failed):
        kind = errors.TestsFailedError
    else:
        kind = errors.ModelsFailedError
    said = shared_causes.grouped((each.node.name, _cause(each, role)) for each in failed)
    more = [f"{len(said) - _NAMED} more causes"] if len(said) > _NAMED else []
    _emit(kind, "; ".join([*said[:_NAMED], *more]))


def _is_stale(result: Any) -> bool:
    return isinstance(result.status, FreshnessStatus) and getattr(result, "age", None) is not None


def _cause(result: Any, role: str | None) -> str:
    """Return why a node failed, on one line."""
    if _is_stale(result):
        return f"its last successful load is {result.age / 3600:.0f} h ago"
    return cause(str(result.message), role)


def cause(message: str, role: str | None) -> str:
    """Return dbt's message about a node without what is only for its log: where it is, and who called it."""
    kept = [line for line in message.splitlines() if line.strip() and not _ONLY_FOR_THE_LOG.match(line)]
    return f"{errors.one_line(' '.join(kept) or message).rstrip('.')}{missing_grant(message, role)}"


def failed(error: BaseException, role: str | None) -> None:
    """Write the code of an error that ended dbt before, or without, any result.

    Args:
        role: the role that dbt connects as; None before that is known.
    """
    said = errors.one_line(error).removeprefix("Database Error ")
    _emit(_kind(error), f"{said}{missing_grant(str(error), role)}")


def freshness_off(manifest: Mapping[str, Any]) -> str | None:
    """Return which tables have no rule of freshness, for a person; None if all have one.

    Args:
        manifest: dbt's manifest.
    """
    sources = [each for each in manifest.get("sources", {}).values() if not each["name"].startswith(OWN)]
    bare = [f"{each['source_name']}.{each['name']}" for each in sources if not _has_rule(each)]
    if sources and not bare:
        return None
    which = "any source" if len(bare) == len(sources) else f"{', '.join(bare[:_NAMED])}"
    more = f" and {len(bare) - _NAMED} more" if _NAMED < len(bare) < len(sources) else ""
    how = "no rule (freshness, with loaded_at_query or loaded_at_field) says how old it may be"
    return f"Freshness is off for {which}{more}: {how}."


def _has_rule(source: Mapping[str, Any]) -> bool:
    rule = source.get("freshness") or {}
    limits = [(rule.get(name) or {}).get("count") for name in ("warn_after", "error_after")]
    return any(limit is not None for limit in limits)


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
