"""A collector in the demo itself: takes what the replicas really export over OTLP/HTTP, and passes it on if asked."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

EXPORT_SECONDS = 0.2  # the replicas are told to send as often
KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it came over the wire; times in nanoseconds."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, str | int]

    @property
    def milliseconds(self) -> float:
        return (self.end - self.start) / 1e6

    @property
    def is_attempt(self) -> bool:
        return self.kind == "CLIENT" and "unsticky.pool" in self.attributes

    @property
    def resend(self) -> int:
        """0 for a call's first attempt."""
        return int(self.attributes.get("http.request.resend_count", 0))


@dataclass(slots=True)
class Collector:
    """What came so far."""

    url: str
    spans: list[Span] = field(default_factory=list)

    def settle(self, seconds: float = 3.0) -> None:
        """Wait until a whole export interval brought nothing new."""
        deadline, seen = time.monotonic() + seconds, -1
        while seen != len(self.spans) and time.monotonic() < deadline:
            seen = len(self.spans)
            time.sleep(2 * EXPORT_SECONDS)

    def traces(self) -> dict[str, list[Span]]:
        """Spans by trace, each in the order of their start."""
        found: dict[str, list[Span]] = {}
        for span in sorted(self.spans.copy(), key=lambda span: span.start):
            found.setdefault(span.trace, []).append(span)
        return found

    def failed_over(self) -> list[Span] | None:
        """A trace in which an attempt failed and the next one succeeded: a whole one if there is one, and small."""
        found = [spans for spans in self.traces().values() if _has_one_root(spans) and _shows_failover(spans)]
        return min(found, key=lambda spans: (_missing(spans), len(spans)), default=None)


def _has_one_root(spans: list[Span]) -> bool:
    known = {span.id for span in spans}
    return sum(span.parent not in known for span in spans) == 1


def _missing(spans: list[Span]) -> int:
    """How many spans of endpoints did not come: who is killed takes its last ones along."""
    parents = {span.parent for span in spans}
    answered = [span for span in spans if span.is_attempt and "http.response.status_code" in span.attributes]
    return sum(span.id not in parents for span in answered)


def _shows_failover(spans: list[Span]) -> bool:
    return any(span.resend and span.attributes.get("http.response.status_code") == 200 for span in spans)


def decode(body: bytes) -> list[Span]:
    """The spans of one export."""
    found = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = str(_attributes(resource.resource.attributes).get("service.name", "?"))
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                times = span.start_time_unix_nano, span.end_time_unix_nano
                kind = KINDS.get(span.kind, "?")
                found.append(Span(service, span.name, kind, *ids, *times, _attributes(span.attributes)))
    return found


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str | int]:
    return {
        pair.key: pair.value.int_value if pair.value.HasField("int_value") else pair.value.string_value
        for pair in pairs
    }


@contextmanager
def collecting() -> Generator[Collector]:
    """A collector on a free port of the loopback."""
    passed_on: SimpleQueue[tuple[bytes, dict[str, str]] | None] = SimpleQueue()
    relay = threading.Thread(target=_relay, args=(passed_on,), daemon=True)

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            coding = self.headers.get("Content-Encoding", "identity")
            collector.spans += decode(gzip.decompress(body) if coding == "gzip" else body)
            passed_on.put((body, {"Content-Type": self.headers["Content-Type"], "Content-Encoding": coding}))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                pass  # a replica was killed, as planned

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.daemon_threads = True
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        relay.start()
        try:
            yield collector
        finally:
            server.shutdown()
            passed_on.put(None)
            relay.join(2)


def _relay(exports: SimpleQueue[tuple[bytes, dict[str, str]] | None]) -> None:
    """Send every export to the user's own collector too, if OTEL_EXPORTER_OTLP_ENDPOINT names one."""
    target = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").rstrip("/")
    with httpx.Client(timeout=2) as client:
        while (export := exports.get()) is not None:
            if target:
                try:
                    client.post(f"{target}/v1/traces", content=export[0], headers=export[1])
                except httpx.TransportError:
                    target = ""  # it is away: the demo goes on without it
