"""The spans of calls over pools, as a collector receives them, alone and beside contrib's instrumentation."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor

from support.otlp import SeenSpan, Telemetry
from support.pools import LIBRARIES, both, in_flight, pools_over
from support.ports import free_port
from support.upstream import Upstream, upstreams
from support.waiting import eventually

INSTRUMENTORS = {"httpx": HTTPXClientInstrumentor, "httpx2": HTTPX2ClientInstrumentor}
TRACER = trace.get_tracer("the app")
NOWAIT = {"backoff": 0}
drivers = pytest.mark.parametrize("driver", ["sync", "async"])


@pytest.fixture
def two() -> Generator[list[Upstream]]:
    with upstreams(2) as found:
        yield found


def first_then_second(two: list[Upstream]) -> list[Any]:
    return [{"url": two[0].url}, {"url": two[1].url, "priority": 1}]


def get(pools: Any, driver: str, url: str, *, instrument: Any = None, **kwargs: Any) -> Any:
    """One GET with a client of `driver`'s kind, inside of a span "caller"."""

    async def main() -> Any:
        async with pools.async_client(**kwargs) as client:
            if instrument is not None:
                instrument.instrument_client(client)
            return await client.get(url)

    with TRACER.start_as_current_span("caller"):
        if driver == "async":
            return asyncio.run(main())
        with pools.client(**kwargs) as client:
            if instrument is not None:
                instrument.instrument_client(client)
            return client.get(url)


def caller(otlp: Telemetry) -> SeenSpan:
    (span,) = (span for span in otlp.spans(client=False) if span.name == "caller")
    return span


def resends(spans: list[SeenSpan]) -> list[int | None]:
    return [span.attributes.get("http.request.resend_count") for span in spans]


@both
@drivers
def test_a_retry_is_two_spans(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """Each attempt is a CLIENT span below the caller's, and its endpoint receives that span's context."""
    two[0].behave("status", status=503)
    with pools_over(library, first_then_second(two), retry=NOWAIT) as pools:
        answer = get(pools, driver, "http://catalog/items")
    first, second = spans = otlp.spans()
    assert [span.scope for span in spans] == ["unsticky"] * 2
    assert {span.parent_id for span in spans} == {caller(otlp).span_id}
    assert resends(spans) == [None, 1]
    assert [span.attributes["network.peer.port"] for span in spans] == [one.port for one in two]
    assert [span.attributes["server.port"] for span in spans] == [one.port for one in two]
    assert [span.attributes["url.full"] for span in spans] == [f"{one.url}/items" for one in two]
    assert [span.attributes["http.response.status_code"] for span in spans] == [503, 200]
    assert (first.status, second.status) == ("ERROR", "UNSET")
    assert second.attributes["unsticky.endpoint.priority"] == 1
    assert second.attributes["network.protocol.version"] == "1.1"
    assert answer.json()["headers"]["traceparent"].split("-")[1:3] == [second.trace_id, second.span_id]
    assert "traceparent" not in answer.request.headers


@both
@drivers
def test_matched_origins_keep_their_name(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """For a `match` origin server.* and url.full are that origin's; the endpoint is the peer."""
    with pools_over(library, [two[0].url], match=["http://api.example.com"]) as pools:
        get(pools, driver, "http://user:word@api.example.com/x?sig=abc")
    (span,) = otlp.spans()
    assert span.attributes["server.address"] == "api.example.com"
    assert span.attributes["server.port"] == 80
    assert span.attributes["url.full"].endswith("api.example.com/x?sig=REDACTED")
    assert span.attributes["network.peer.port"] == two[0].port
    assert b"word" not in otlp.receiver.raw


@both
@drivers
def test_failures_name_their_exception(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """error.type is the full name of the library's exception."""
    two[1].pause()
    urls = [{"url": f"http://127.0.0.1:{free_port()}"}, {"url": two[1].url, "priority": 1}]
    retry = {**NOWAIT, "attempts": 2, "attempt_timeout": "300ms"}
    with pools_over(library, urls, retry=retry) as pools, pytest.raises(LIBRARIES[library].TimeoutException):
        get(pools, driver, "http://catalog/")
    spans = otlp.spans()
    assert [span.attributes["error.type"] for span in spans] == [f"{library}.ConnectError", f"{library}.ReadTimeout"]
    assert [span.status for span in spans] == ["ERROR", "ERROR"]


@both
@drivers
def test_redirects_go_on_counting(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """A redirect is a resend too, whatever the caller passes as extensions."""
    two[0].behave("redirect", to="/there")
    with pools_over(library, [two[0].url]) as pools:
        get(pools, driver, "http://catalog/here", follow_redirects=True)
        assert resends(otlp.spans()) == [None, 1]


@both
def test_cancellation_is_no_error(library: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """A span whose caller went away ends without an error."""
    two[0].pause()

    async def main() -> None:
        async with pools.async_client(timeout=1) as client:
            task = asyncio.create_task(client.get("http://catalog/"))
            while in_flight(pools) == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])

    with pools_over(library, [two[0].url]) as pools:
        asyncio.run(main())
    (span,) = otlp.spans()
    assert (span.status, span.attributes["unsticky.cancelled"]) == ("UNSET", True)


@both
@drivers
def test_events_on_the_callers_span(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """Ejection and failover are told on the span that made the call, and counted."""
    two[0].kill()
    ejection = {"consecutive_failures": 1, "maximum_percent": 100}
    with pools_over(library, first_then_second(two), retry=NOWAIT, ejection=ejection) as pools:
        get(pools, driver, "http://catalog/")
    events = caller(otlp).events
    assert [name for name, _ in events] == ["unsticky.ejection", "unsticky.failover"]
    assert events[0][1]["unsticky.endpoint"] == two[0].address
    assert (events[1][1]["unsticky.from_priority"], events[1][1]["unsticky.to_priority"]) == (0, 1)


@both
@drivers
def test_the_duration_metric(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """Each attempt is one measurement."""
    two[0].behave("status", status=503)
    name = f"{library}-{driver}.example"  # measurements of a process add up, so that this test needs its own
    with pools_over(library, first_then_second(two), match=[f"http://{name}"], retry=NOWAIT) as pools:
        get(pools, driver, f"http://{name}/")
    points = [p for p in otlp.points("http.client.request.duration") if p.attributes["server.address"] == name]
    assert sorted(point.attributes["http.response.status_code"] for point in points) == [200, 503]
    assert all(point.count == 1 and point.scope == "unsticky" for point in points)


@both
@drivers
def test_other_hosts_are_not_traced(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """Calls that pass through have no span of ours, and nothing in their headers."""
    with pools_over(library, [two[0].url]) as pools:
        answer = get(pools, driver, f"{two[1].url}/")
    assert otlp.spans() == []
    assert "traceparent" not in answer.json()["headers"]


@both
@drivers
def test_beside_instrumented_transports(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """`.instrument()` patches the transport below ours: our spans alone remain, and pass-through calls have its."""
    two[0].behave("status", status=503)
    INSTRUMENTORS[library]().instrument()
    try:
        with pools_over(library, first_then_second(two), retry=NOWAIT) as pools:
            answer = get(pools, driver, "http://catalog/")
            spans = otlp.spans()
            get(pools, driver, f"{two[1].url}/")
    finally:
        INSTRUMENTORS[library]().uninstrument()
    assert [span.scope for span in spans] == ["unsticky"] * 2
    assert answer.json()["headers"]["traceparent"].split("-")[2] == spans[1].span_id
    assert otlp.spans()[2].scope == "opentelemetry.instrumentation.httpx"


@both
@drivers
def test_beside_an_instrumented_client(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """`instrument_client` wraps ours: its one span remains, with our events, and its context is what is sent."""
    two[0].kill()
    ejection = {"consecutive_failures": 1, "maximum_percent": 100}
    with pools_over(library, first_then_second(two), retry=NOWAIT, ejection=ejection) as pools:
        answer = get(pools, driver, "http://catalog/", instrument=INSTRUMENTORS[library])
    (span,) = otlp.spans()
    assert span.scope == "opentelemetry.instrumentation.httpx"
    assert span.parent_id == caller(otlp).span_id
    names = ["unsticky.attempt", "unsticky.ejection", "unsticky.failover", "unsticky.attempt"]
    assert [name for name, _ in span.events] == names
    assert answer.json()["headers"]["traceparent"].split("-")[2] == span.span_id


@both
@drivers
def test_attempts_of_an_instrumented_client(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """Each attempt is an event of the client's one span, with its endpoint and how it ended; the span has the pool."""
    two[0].behave("status", status=503)
    two[1].kill()
    retry = {**NOWAIT, "attempts": 2}
    failed = pytest.raises(LIBRARIES[library].ConnectError)
    with pools_over(library, first_then_second(two), retry=retry) as pools, failed:
        get(pools, driver, "http://catalog/", instrument=INSTRUMENTORS[library])
    (span,) = otlp.spans()
    assert span.attributes["unsticky.pool"] == "catalog"
    ours = {"unsticky.pool": "catalog"}
    first = {**ours, "unsticky.endpoint": two[0].address, "http.response.status_code": 503}
    second = {**ours, "unsticky.endpoint": two[1].address, "http.request.resend_count": 1}
    events = [attributes for name, attributes in span.events if name == "unsticky.attempt"]
    assert events == [first, {**second, "error.type": f"{library}.ConnectError"}]
    assert "unsticky.attempt" not in [name for name, _ in caller(otlp).events]
    assert "unsticky.pool" not in caller(otlp).attributes


@both
def test_a_url_that_the_client_leaves_out(
    library: str, otlp: Telemetry, two: list[Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where contrib makes no span, attempts are told on the caller's, which is not made one of the pool's."""
    monkeypatch.setenv("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "catalog")
    with pools_over(library, [two[0].url]) as pools:
        get(pools, "sync", "http://catalog/", instrument=INSTRUMENTORS[library])
    assert otlp.spans() == []
    assert [name for name, _ in caller(otlp).events] == ["unsticky.attempt"]
    assert "unsticky.pool" not in caller(otlp).attributes


@both
@drivers
def test_both_instrumentations_at_once(library: str, driver: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """With both installed there is still one CLIENT span per call, the client's."""
    INSTRUMENTORS[library]().instrument()
    try:
        with pools_over(library, [two[0].url]) as pools:
            get(pools, driver, "http://catalog/", instrument=INSTRUMENTORS[library])
    finally:
        INSTRUMENTORS[library]().uninstrument()
    assert len(otlp.spans()) == 1


@both
def test_health_checks_are_not_traced(library: str, otlp: Telemetry, two: list[Upstream]) -> None:
    """Probes have no spans, not even where contrib's instrumentation is installed."""
    HTTPXClientInstrumentor().instrument()
    try:
        with pools_over(library, [two[0].url], health={"path": "/healthz"}) as pools:
            get(pools, "sync", "http://catalog/")
            eventually(lambda: pools.status()["catalog"][0].healthy)
    finally:
        HTTPXClientInstrumentor().uninstrument()
    assert [span.attributes["url.full"] for span in otlp.spans()] == [f"{two[0].url}/"]
    assert two[0].seen()["GET /healthz"] >= 1
