"""A receiver for OTLP metrics that Prometheus can scrape, in place of Prometheus 3's own receiver.

It runs with the Python of Airflow's environment, which has OTLP's messages: `python otlp.py HOST PORT`. Names and the
labels `job` and `instance` are those that Prometheus 3 gives. Of a histogram it shows only the count and the sum.
"""

from __future__ import annotations

import gzip
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNITS = {"ms": "_milliseconds", "s": "_seconds", "By": "_bytes"}
_SAMPLES: dict[str, float] = {}
_LOCK = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        found = dict(_samples(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body)))
        with _LOCK:
            _SAMPLES.update(found)
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        with _LOCK:
            lines = [f"{name} {value}\n" for name, value in sorted(_SAMPLES.items())]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write("".join(lines).encode())

    def log_message(self, *_: object) -> None:
        pass


def _samples(request: Any) -> Iterator[tuple[str, float]]:
    for about in request.resource_metrics:
        resource = {each.key: each.value.string_value for each in about.resource.attributes}
        identity = {"job": resource["service.name"], "instance": resource["service.instance.id"]}
        for scope in about.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                name = re.sub(r"\W", "_", metric.name) + _UNITS.get(metric.unit, "")
                for point in getattr(metric, kind).data_points:
                    given = {re.sub(r"\W", "_", each.key): _text(each.value) for each in point.attributes}
                    labels = ",".join(f'{key}="{value}"' for key, value in sorted({**given, **identity}.items()))
                    if kind in {"gauge", "sum"}:
                        total = "_total" if kind == "sum" and metric.sum.is_monotonic else ""
                        yield f"{name}{total}{{{labels}}}", getattr(point, point.WhichOneof("value"))
                    else:
                        yield f"{name}_count{{{labels}}}", point.count
                        yield f"{name}_sum{{{labels}}}", point.sum


def _text(value: Any) -> str:
    said = str(getattr(value, value.WhichOneof("value")))
    return said.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), _Handler).serve_forever()
