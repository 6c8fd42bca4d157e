"""The samples of one scrape, put together by stream and by model. Pure: no I/O here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidemark.metrics import catalogue

if TYPE_CHECKING:
    from tidemark.metrics.samples import Samples


@dataclass(frozen=True)
class StreamOverview:
    """One stream. Instants are in seconds since the epoch; what is unknown is None."""

    source: str
    stream: str
    outcome: str | None = None
    code: str = ""
    started: float | None = None
    succeeded: float | None = None
    lag: float | None = None
    interval: float | None = None
    held: float = 0
    held_by: str = ""
    locked: bool = False
    log_state: str | None = None
    running_rows: float | None = None
    rows: float | None = None
    usual_rows: float | None = None
    rejects: float = 0
    differences: float = 0
    reconciled: bool = True


@dataclass(frozen=True)
class ModelOverview:
    """One model. `failing` is the number of its tests that fail or can't run."""

    model: str
    outcome: str | None = None
    succeeded: float | None = None
    failing: int = 0


@dataclass(frozen=True)
class Overview:
    """All of it.

    Attributes:
        parts: whether each part could be read.
        tests: how many tests have each result.
    """

    parts: dict[str, bool]
    streams: list[StreamOverview]
    models: list[ModelOverview]
    tests: Counter[str] = field(default_factory=Counter)
    build_interval: float | None = None
    build_locked: bool = False
    backups: float | None = None
    backup_made: float | None = None
    backup_bytes: float | None = None
    drill_at: float | None = None
    drill_succeeded: bool | None = None


def overview(samples: Samples) -> Overview:
    """Put the samples together."""

    def one(metric: catalogue.Metric) -> float | None:
        return samples.of(metric).get(())

    tests: Counter[str] = Counter()
    failing: Counter[str] = Counter()
    for (model, result), count in samples.of(catalogue.MODEL_TESTS).items():
        tests[result] += int(count)
        failing[model] += int(count) if result in {"fail", "error"} else 0
    drill = one(catalogue.DRILL_SUCCESS)
    return Overview(
        parts={part: bool(up) for (part,), up in samples.of(catalogue.UP).items()},
        streams=_streams(samples),
        models=_models(samples, failing),
        tests=tests,
        build_interval=one(catalogue.BUILD_INTERVAL),
        build_locked=bool(one(catalogue.BUILD_LOCKED)),
        backups=one(catalogue.BACKUPS),
        backup_made=one(catalogue.BACKUP_TIME),
        backup_bytes=one(catalogue.BACKUP_BYTES),
        drill_at=one(catalogue.DRILL_TIME),
        drill_succeeded=None if drill is None else bool(drill),
    )


def _streams(samples: Samples) -> list[StreamOverview]:
    intervals, lags = samples.of(catalogue.STREAM_INTERVAL), samples.of(catalogue.STREAM_LAG)
    started, succeeded = samples.of(catalogue.STREAM_LAST_RUN_STARTED), samples.of(catalogue.STREAM_LAST_SUCCESS)
    rows, usual = samples.of(catalogue.STREAM_LAST_RUN_ROWS), samples.of(catalogue.STREAM_USUAL_ROWS)
    running, locked = samples.of(catalogue.STREAM_RUNNING_ROWS), samples.of(catalogue.STREAM_LOCKED)
    reconciled = samples.of(catalogue.STREAM_COMPARED_OK)
    outcomes = {labels[:2]: labels[2:] for labels in samples.of(catalogue.STREAM_LAST_RUN)}
    log_states = {labels[:2]: labels[2] for labels in samples.of(catalogue.STREAM_LOG)}
    held = {labels[:2]: (seconds, labels[2]) for labels, seconds in samples.of(catalogue.STREAM_HELD).items()}
    differences: Counter[tuple[str, ...]] = Counter()
    for labels, count in samples.of(catalogue.STREAM_DIFFERENCES).items():
        differences[labels[:2]] += int(count)
    found = []
    for key, rejects in samples.of(catalogue.STREAM_REJECTS).items():
        outcome, code = outcomes.get(key, (None, ""))
        seconds, by = held.get(key, (0.0, ""))
        found.append(
            StreamOverview(
                source=key[0],
                stream=key[1],
                outcome=outcome,
                code=code or "",
                started=started.get(key),
                succeeded=succeeded.get(key),
                lag=lags.get(key),
                interval=intervals.get(key),
                held=seconds,
                held_by=by,
                locked=bool(locked.get(key)),
                log_state=log_states.get(key),
                running_rows=running.get(key),
                rows=rows.get(key),
                usual_rows=usual.get(key),
                rejects=rejects,
                differences=differences[key],
                reconciled=bool(reconciled.get(key, 1)),
            )
        )
    return found


def _models(samples: Samples, failing: Counter[str]) -> list[ModelOverview]:
    succeeded = samples.of(catalogue.MODEL_LAST_SUCCESS)
    outcomes = {labels[0]: labels[1] for labels in samples.of(catalogue.MODEL_LAST_RUN)}
    # tests can be about sources, which are no models
    return [
        ModelOverview(model, outcomes.get(model), succeeded.get((model,)), failing[model])
        for model in sorted(outcomes.keys() | {model for model, count in failing.items() if count})
    ]
