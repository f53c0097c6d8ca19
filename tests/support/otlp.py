"""An OTLP/HTTP receiver: decodes the protobuf that the SDK's exporters really send."""

from __future__ import annotations

import atexit
import gzip
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from support.waiting import eventually

KINDS = {0: "UNSPECIFIED", 1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}


@dataclass(frozen=True)
class SeenSpan:
    """One span, as it came over the wire."""

    name: str
    kind: str
    scope: str
    trace_id: str
    span_id: str
    parent_id: str
    status: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    start: int  # ns
    end: int  # ns


@dataclass(frozen=True)
class SeenPoint:
    """One data point of a metric."""

    name: str
    unit: str
    scope: str
    attributes: dict[str, Any]
    value: float  # a counter's value, a histogram's sum
    count: int
    bounds: list[float]


@dataclass
class Receiver:
    """What came so far. `url` is for OTEL_EXPORTER_OTLP_ENDPOINT."""

    url: str
    spans: list[SeenSpan] = field(default_factory=list)
    points: list[SeenPoint] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)

    def wait_for_spans(self, wanted: Callable[[SeenSpan], bool], count: int = 1) -> list[SeenSpan]:
        """At least `count` spans that are `wanted`, in the order of their start."""
        eventually(lambda: sum(map(wanted, self.spans)) >= count)
        return sorted(filter(wanted, self.spans), key=lambda span: span.start)

    def clear(self) -> None:
        self.spans.clear()
        self.points.clear()
        self.raw.clear()


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _spans(message: ExportTraceServiceRequest) -> Generator[SeenSpan]:
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield SeenSpan(
                    name=span.name,
                    kind=KINDS[span.kind],
                    scope=scope.scope.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    status=STATUSES[span.status.code],
                    attributes=_attributes(span.attributes),
                    events=[(event.name, _attributes(event.attributes)) for event in span.events],
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                )


def _points(message: ExportMetricsServiceRequest) -> Generator[SeenPoint]:
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                common = {"name": metric.name, "unit": metric.unit, "scope": scope.scope.name}
                for point in metric.histogram.data_points:
                    yield SeenPoint(
                        **common,
                        attributes=_attributes(point.attributes),
                        value=point.sum,
                        count=point.count,
                        bounds=list(point.explicit_bounds),
                    )
                for number in (*metric.sum.data_points, *metric.gauge.data_points):
                    value = number.as_int if number.WhichOneof("value") == "as_int" else number.as_double
                    yield SeenPoint(
                        **common, attributes=_attributes(number.attributes), value=value, count=1, bounds=[]
                    )


@contextmanager
def otlp_receiver() -> Generator[Receiver]:
    """A receiver on a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.raw += body
            if self.path == "/v1/traces":
                receiver.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
            elif self.path == "/v1/metrics":
                receiver.points.extend(_points(ExportMetricsServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tracer_provider() -> TracerProvider:
    """The process's SDK tracer provider: OpenTelemetry allows one to be set, once."""
    if not isinstance(provider := trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(provider := TracerProvider(shutdown_on_exit=False))
    return provider


class Telemetry:
    """The real SDK, exporting to a receiver. `flush()` sends what is there, so that no test waits for a timer."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._processor = BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces"))
        self._reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(f"{receiver.url}/v1/metrics"), export_interval_millis=3_600_000
        )
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        metrics.set_meter_provider(self.meters)
        tracer_provider().add_span_processor(self._processor)

    def flush(self) -> None:
        assert self._processor.force_flush()
        assert self._reader.force_flush()

    def spans(self, *, client: bool = True) -> list[SeenSpan]:
        """All spans that came, the oldest first; CLIENT spans alone, unless told otherwise."""
        self.flush()
        return self.receiver.wait_for_spans(lambda span: span.kind == "CLIENT" or not client, 0)

    def points(self, name: str) -> list[SeenPoint]:
        """The latest data points of the metric `name`."""
        self.receiver.points.clear()
        self.flush()
        return [point for point in self.receiver.points if point.name == name]


_telemetry: list[Telemetry] = []


@contextmanager
def telemetry() -> Generator[Telemetry]:
    """The process's Telemetry, emptied. The first test that needs it starts it, for good: providers can't be undone."""
    if not _telemetry:
        started = otlp_receiver()
        _telemetry.append(Telemetry(started.__enter__()))
        _open.append(started)
        # While its thread still runs: when modules are torn down, it is gone, and `shutdown` would wait for ever.
        atexit.register(started.__exit__, None, None, None)
    found = _telemetry[0]
    found.flush()
    found.receiver.clear()
    yield found


_open: list[Any] = []
