"""Spans, metrics and events, as a collector receives them from the real SDK."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind

from support.otlp import Telemetry
from unsticky.clock import SystemClock
from unsticky.routing.call import Endpoint
from unsticky.telemetry import otel
from unsticky.telemetry.attributes import Traced, redacted
from unsticky.telemetry.contexts import Attached, suppressed, traced_above
from unsticky.telemetry.otel import AttemptSpan, start_attempt

ENDPOINT = Endpoint("http://10.0.0.1:8000", "10.0.0.1:8000")
TRACED = Traced("catalog", "GET", "http://10.0.0.1:8000/items?q=1", "10.0.0.1:8000", 0)
TRACER = trace.get_tracer("the app")


def start(traced: Traced = TRACED, endpoint: Endpoint = ENDPOINT) -> AttemptSpan:
    span = start_attempt(traced, endpoint, SystemClock(), above=False)
    assert isinstance(span, AttemptSpan)
    return span


def test_a_span_has_all_attributes(otlp: Telemetry) -> None:
    """One CLIENT span, named by its method, with the attributes of the stable conventions and ours, and no others."""
    start().responded(200, "1.1")
    (span,) = otlp.spans()
    assert (span.name, span.kind, span.scope, span.status) == ("GET", "CLIENT", "unsticky", "UNSET")
    assert span.attributes == {
        "http.request.method": "GET",
        "server.address": "10.0.0.1",
        "server.port": 8000,
        "url.full": "http://10.0.0.1:8000/items?q=1",
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 8000,
        "peer.service": "catalog",
        "unsticky.pool": "catalog",
        "unsticky.endpoint": "10.0.0.1:8000",
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }


def test_resends_priority_and_locality(otlp: Telemetry) -> None:
    """The ordinal of a resend, a priority and a locality are there when there are any."""
    start(replace(TRACED, resend_count=2), replace(ENDPOINT, priority=1, locality="b")).responded(200, "2")
    attributes = otlp.spans()[0].attributes
    assert attributes["http.request.resend_count"] == 2
    assert attributes["unsticky.endpoint.priority"] == 1
    assert attributes["unsticky.endpoint.locality"] == "b"


def test_server_follows_the_host_header(otlp: Telemetry) -> None:
    """server.* is the origin that the Host header names, network.peer.* the chosen endpoint."""
    start(replace(TRACED, url="https://api.example.com/x", host="api.example.com")).responded(200, "1.1")
    attributes = otlp.spans()[0].attributes
    assert (attributes["server.address"], attributes["server.port"]) == ("api.example.com", 443)
    assert (attributes["network.peer.address"], attributes["network.peer.port"]) == ("10.0.0.1", 8000)


def test_addresses_of_version_6_have_no_brackets(otlp: Telemetry) -> None:
    """IPv6 addresses come without their brackets."""
    start(replace(TRACED, host="[::1]:81"), Endpoint("http://[::1]:81", "[::1]:81")).responded(200, "1.1")
    attributes = otlp.spans()[0].attributes
    assert (attributes["server.address"], attributes["server.port"]) == ("::1", 81)
    assert (attributes["network.peer.address"], attributes["network.peer.port"]) == ("::1", 81)


@pytest.mark.parametrize("host", ["", "a:b:c", "x:99999", "[", "user@h"])
def test_odd_host_headers_do_no_harm(otlp: Telemetry, host: str) -> None:
    """A Host header that the caller made up ends in a span all the same."""
    start(replace(TRACED, host=host)).responded(200, "1.1")
    assert len(otlp.spans()) == 1


def test_unknown_methods(otlp: Telemetry) -> None:
    """A method that the conventions do not know is _OTHER, its original kept; the span's name is HTTP."""
    start(replace(TRACED, method="BREW")).responded(200, "1.1")
    (span,) = otlp.spans()
    assert span.name == "HTTP"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


@pytest.mark.parametrize(("status", "error"), [(302, None), (404, "404"), (503, "503")])
def test_statuses(otlp: Telemetry, status: int, error: str | None) -> None:
    """4xx and 5xx are errors of a client's span."""
    start().responded(status, "1.1")
    (span,) = otlp.spans()
    assert span.status == ("ERROR" if error else "UNSET")
    assert span.attributes.get("error.type") == error


def test_exceptions_give_their_type_alone(otlp: Telemetry) -> None:
    """An exception's full name is recorded, and nothing of its text."""
    start().failed(TimeoutError("secret-in-text"))
    start().failed(pytest.UsageError("secret-in-text"))
    first, second = otlp.spans()
    assert first.attributes["error.type"] == "TimeoutError"
    assert second.attributes["error.type"] == "pytest.UsageError"
    assert first.status == "ERROR"
    assert b"secret-in-text" not in otlp.receiver.raw


def test_cancellation_is_no_error(otlp: Telemetry) -> None:
    """The caller's going away is noted, and no error."""
    start().cancelled()
    (span,) = otlp.spans()
    assert span.status == "UNSET"
    assert span.attributes["unsticky.cancelled"] is True
    assert "error.type" not in span.attributes


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:p%40@h/x", "http://REDACTED:REDACTED@h/x"),
        ("http://u@h/x?e=a@b", "http://REDACTED:REDACTED@h/x?e=a@b"),
        ("http://h/x?e=a@b", "http://h/x?e=a@b"),
        ("http://h/?a=1&sig=abc&b=2#sig=f", "http://h/?a=1&sig=REDACTED&b=2#sig=f"),
        ("http://h/?Signature=a", "http://h/?Signature=REDACTED"),
        ("http://h/?AWSAccessKeyId=a&X-Amz-Signature=b", "http://h/?AWSAccessKeyId=REDACTED&X-Amz-Signature=REDACTED"),
        ("http://h/?X-Amz-Credential=a", "http://h/?X-Amz-Credential=REDACTED"),
        ("http://h/?X-Amz-Security-Token=a", "http://h/?X-Amz-Security-Token=REDACTED"),
        ("http://h/?X-Goog-Signature=", "http://h/?X-Goog-Signature=REDACTED"),
        ("http://h/?design=a", "http://h/?design=a"),
        ("http://h/sig=a", "http://h/sig=a"),
    ],
)
def test_redaction(url: str, shown: str) -> None:
    """Credentials and signatures never leave in url.full."""
    assert redacted(url) == shown


def test_each_attempt_carries_its_own_context(otlp: Telemetry) -> None:
    """The headers of an attempt name that attempt's span, inside the caller's trace."""
    with TRACER.start_as_current_span("caller") as caller:
        spans = [start(), start(replace(TRACED, resend_count=1))]
        headers = [span.headers()["traceparent"].split("-") for span in spans]
        for span in spans:
            span.responded(200, "1.1")
    seen = otlp.spans()
    assert [header[2] for header in headers] == [span.span_id for span in seen]
    assert {header[1] for header in headers} == {format(caller.get_span_context().trace_id, "032x")}
    assert {span.parent_id for span in seen} == {format(caller.get_span_context().span_id, "016x")}


def test_the_duration(otlp: Telemetry) -> None:
    """The histogram has the advised buckets, seconds, and the low-cardinality attributes alone."""
    start(replace(TRACED, host="duration.example")).responded(503, "1.1")
    (point,) = [
        point
        for point in otlp.points("http.client.request.duration")
        if point.attributes["server.address"] == "duration.example"
    ]
    assert point.unit == "s"
    assert point.count == 1
    assert point.bounds == [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
    assert point.attributes == {
        "http.request.method": "GET",
        "server.address": "duration.example",
        "server.port": 80,
        "error.type": "503",
        "http.response.status_code": 503,
        "network.protocol.version": "1.1",
    }


def test_events_go_to_the_current_span(otlp: Telemetry) -> None:
    """What happens to a pool is an event of the caller's span, and counted."""
    with TRACER.start_as_current_span("caller"):
        otel.pool_event("events", "ejection", {"endpoint": "10.0.0.1:8000", "seconds": 30.0})
    (span,) = otlp.spans(client=False)
    assert span.events == [
        (
            "unsticky.ejection",
            {"unsticky.pool": "events", "unsticky.endpoint": "10.0.0.1:8000", "unsticky.seconds": 30.0},
        )
    ]
    counted = [p for p in otlp.points("unsticky.pool.events") if p.attributes["unsticky.pool"] == "events"]
    assert [(point.value, point.attributes["unsticky.event"]) for point in counted] == [(1, "ejection")]


def test_sessions_are_events_without_an_id(otlp: Telemetry) -> None:
    """Loads and commits say how long, whether and how, on the current span."""
    with TRACER.start_as_current_span("request", kind=SpanKind.SERVER):
        otel.session_loaded(0.001, True)
        otel.session_committed(0.002, "created")
    (span,) = otlp.spans(client=False)
    assert span.events == [
        ("unsticky.session.load", {"unsticky.session.duration": 0.001, "unsticky.session.found": True}),
        ("unsticky.session.commit", {"unsticky.session.duration": 0.002, "unsticky.session.result": "created"}),
    ]


def test_without_a_current_span_events_do_nothing() -> None:
    """Outside of any span there is nothing to add to."""
    otel.session_loaded(0.001, False)
    otel.session_committed(0.001, "gone")
    otel.pool_event("nowhere", "panic", {})


def test_attempts_as_events(otlp: Telemetry) -> None:
    """Below another's span an attempt is an event of it; suppressed, or without one, it is nothing."""
    start_attempt(TRACED, ENDPOINT, SystemClock(), above=True).responded(200, "1.1")
    with TRACER.start_as_current_span("client", kind=SpanKind.CLIENT):
        start_attempt(TRACED, ENDPOINT, SystemClock(), above=True).responded(200, "1.1")
        start_attempt(replace(TRACED, resend_count=1), ENDPOINT, SystemClock(), above=True).failed(OSError("secret"))
        start_attempt(TRACED, ENDPOINT, SystemClock(), above=True).cancelled()
        with suppressed():
            start_attempt(TRACED, ENDPOINT, SystemClock(), above=True).responded(200, "1.1")
    (span,) = otlp.spans()
    ours = {"unsticky.pool": "catalog", "unsticky.endpoint": "10.0.0.1:8000"}
    assert span.events == [
        ("unsticky.attempt", {**ours, "http.response.status_code": 200}),
        ("unsticky.attempt", {**ours, "http.request.resend_count": 1, "error.type": "OSError"}),
        ("unsticky.attempt", {**ours, "unsticky.cancelled": True}),
    ]
    assert span.attributes == {"unsticky.pool": "catalog"}


def test_suppressed_instrumentation_is_respected(otlp: Telemetry) -> None:
    """Where instrumentation is suppressed, as an exporter does for itself, there are no spans of ours."""
    assert not traced_above(object.__new__(type("Transport", (), {})), "handle_request")
    with suppressed():
        assert traced_above(object.__new__(type("Transport", (), {})), "handle_request")
    assert context.get_current() == context.Context()


def test_baggage_and_trace_state_are_sent_on_with_the_span(otlp: Telemetry) -> None:
    """The header that is written by hand is for the plain case alone."""
    state = trace.TraceState([("vendor", "1")])
    parent = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    with_parent = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    with Attached(with_parent):
        headers = start().headers()
    assert headers["traceparent"].startswith(f"00-{1:032x}-")
    assert headers["tracestate"] == "vendor=1"
    with Attached(baggage.set_baggage("tenant", "a")):
        headers = start().headers()
    assert headers.keys() == {"traceparent", "baggage"}
    assert headers["baggage"] == "tenant=a"


def test_without_an_sdk_what_came_in_is_sent_on() -> None:
    """An attempt that is not described carries the caller's context, and nothing if there is none."""
    assert otel.UNRECORDED.headers() == {}
    parent = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    with Attached(trace.set_span_in_context(trace.NonRecordingSpan(parent))), otel.UNRECORDED.sending():
        assert otel.UNRECORDED.headers() == {"traceparent": f"00-{1:032x}-{2:016x}-01"}
    with Attached(baggage.set_baggage("tenant", "a")):
        assert otel.UNRECORDED.headers() == {"baggage": "tenant=a"}


@pytest.mark.parametrize("kind", ["trace", "metrics"])
def test_an_sdk_is_noticed_whenever_it_comes(kind: str) -> None:
    """Spans' or metrics', also after the first call; by the API's private names, so that this fails if they change."""
    provider = {"trace": "TracerProvider", "metrics": "MeterProvider"}[kind]
    setter = {"trace": "set_tracer_provider", "metrics": "set_meter_provider"}[kind]
    program = f"""
from unsticky.telemetry import otel
assert not otel.recorded()
from opentelemetry import {kind}
from opentelemetry.sdk.{kind} import {provider}
{kind}.{setter}({provider}(shutdown_on_exit=False))
assert otel.recorded()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
