"""OpenTelemetry, with the API alone: one CLIENT span per attempt, its metric, and events on the caller's span.

Names follow the stable HTTP conventions (semantic conventions 1.44.0); what is ours is called `unsticky.*`.
An attempt's span ends at the response's headers, as does its duration: reading the body is the caller's pace.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import __version__
from ..clock import Clock
from ..routing.call import Endpoint
from .attributes import METHODS, Attributes, Traced, attributes_of, qualified_name
from .contexts import AS_IT_IS, below, told_above, untouched

_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_OURS = 2  # keys that an attempt's context has: its span, and the one below. More may be baggage.


_tracer = trace.get_tracer("unsticky", __version__, schema_url=_SCHEMA)
meter = metrics.get_meter("unsticky", __version__, schema_url=_SCHEMA)
_duration = meter.create_histogram(
    "http.client.request.duration",
    unit="s",
    description="Duration of HTTP client requests.",
    explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
)
_pool_events = meter.create_counter(
    "unsticky.pool.events",
    unit="{event}",
    description="Ejections, recoveries, failovers and panics of pools, by unsticky.event.",
)

_session_events = meter.create_counter(
    "unsticky.session.events", unit="{event}", description="What became of sessions, by unsticky.event."
)

_violations = meter.create_counter(
    "unsticky.stateless.violations",
    unit="{violation}",
    description="Times that the guard told of state that stays in this process, by stateless.kind and verdict.",
)


class AttemptSpan:
    """The span of one attempt. Exactly one of `responded`, `failed`, `cancelled` ends it.

    Inside `with` it is current, and contrib's instrumentation of the transport below adds no other.
    """

    __slots__ = ("_clock", "_context", "_metric", "_span", "_started", "_token")

    def __init__(self, traced: Traced, endpoint: Endpoint, clock: Clock) -> None:
        attributes, self._metric = attributes_of(traced, endpoint)
        method, current = traced.method, context.get_current()
        self._clock = clock
        self._started = clock.monotonic()
        self._span = span = _tracer.start_span(
            method if method in METHODS else "HTTP", current, SpanKind.CLIENT, attributes
        )
        # One context for what is sent on and for what runs below.
        self._context = below(current, span)

    def headers(self) -> dict[str, str]:
        """What the configured propagator wants this attempt, and no other, to carry."""
        trace_id, span_id, _, flags, state, valid = self._span.get_span_context()  # a tuple: properties take longer
        if state or not valid or len(self._context) > _OURS or not _sends_w3c():
            return _injected(self._context)
        return {"traceparent": f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"}

    def sending(self) -> AbstractContextManager[None]:
        return self

    def __enter__(self) -> None:
        self._token = context.attach(self._context)

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)

    def responded(self, status: int, version: str) -> None:
        """Response headers came; `version` is the protocol's, such as "1.1"."""
        span = self._span
        if status >= 400:
            span.set_status(StatusCode.ERROR)
        if span.is_recording() or _metered():
            seen: Attributes = {"http.response.status_code": status, "network.protocol.version": version}
            if status >= 400:
                seen["error.type"] = str(status)
            span.set_attributes(seen)
            self._end(seen)
        else:
            span.end()

    def failed(self, error: BaseException) -> None:
        """No response. The error's text may hold user data, so that its type alone is recorded."""
        name = qualified_name(error)
        if self._span.is_recording():
            self._span.set_attribute("error.type", name)
        self._span.set_status(StatusCode.ERROR)
        self._end({"error.type": name})

    def faulted(self, fault: str) -> None:
        """It waits ("delay") or fails ("abort") on purpose."""
        self._span.set_attribute("unsticky.fault", fault)

    def cancelled(self) -> None:
        """The caller went away, or another attempt was quicker, which is no error of this one."""
        self._span.set_attribute("unsticky.cancelled", True)
        self._end({})

    def _end(self, seen: Attributes) -> None:
        if _metered():
            seconds = max(self._clock.monotonic() - self._started, 0.0)
            _duration.record(seconds, {**self._metric, **seen}, self._context)
        self._span.end()


class Untraced:
    """Stands where an AttemptSpan would, when there must be none and there is nothing to add to."""

    __slots__ = ()

    def headers(self) -> dict[str, str]:
        return {}  # whoever made the span above has put its context into the request's headers

    def sending(self) -> AbstractContextManager[None]:
        return untouched()

    def responded(self, status: int, version: str) -> None: ...

    def failed(self, error: BaseException) -> None: ...

    def faulted(self, fault: str) -> None: ...

    def cancelled(self) -> None: ...


UNTRACED = Untraced()


class Unrecorded(Untraced):
    """Without an SDK: nothing is noted, but what came in with the current context is sent on."""

    __slots__ = ()

    def headers(self) -> dict[str, str]:
        current = context.get_current()
        return _injected(current) if current or not _sends_w3c() else {}

    def sending(self) -> AbstractContextManager[None]:
        return AS_IT_IS


UNRECORDED = Unrecorded()


def recorded() -> bool:
    """Whether spans or metrics go anywhere: no attempt need be described where no SDK is configured.

    By private names of the API, as asking it looks into the environment each time. Without them, there is one.
    """
    return _of_traces.get("_TRACER_PROVIDER", trace) is not None or _metered()


def _metered() -> bool:
    return _of_metrics.get("_METER_PROVIDER", metrics) is not None


_of_traces = vars(trace)
_of_metrics = vars(getattr(metrics, "_internal", metrics))


def _injected(current: Context) -> dict[str, str]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier, current)
    return carrier


def _sends_w3c() -> bool:
    """Is the propagator the default one, whose header is written here in a third of its time?"""
    return _is_w3c(propagate.get_global_textmap())


@lru_cache(maxsize=8)
def _is_w3c(propagator: object) -> bool:
    parts = getattr(propagator, "_propagators", ())
    return [type(part) for part in parts] == [TraceContextTextMapPropagator, W3CBaggagePropagator]


class AttemptEvent(Untraced):
    """An attempt as an event of the client's span: it stays visible where that instrumentation made the only span."""

    __slots__ = ("_attributes", "_span")

    def __init__(self, traced: Traced, endpoint: Endpoint, span: Span) -> None:
        self._span = span
        self._attributes: Attributes = {"unsticky.pool": traced.pool, "unsticky.endpoint": endpoint.address}
        if traced.resend_count:
            self._attributes["http.request.resend_count"] = traced.resend_count
        if traced.rule is not None:
            self._attributes["unsticky.rule"] = traced.rule
        if traced.hedge:
            self._attributes["unsticky.hedge"] = True
        if getattr(span, "kind", None) is SpanKind.CLIENT:  # else that instrumentation left this URL out
            span.set_attribute("unsticky.pool", traced.pool)

    def responded(self, status: int, version: str) -> None:
        self._end("http.response.status_code", status)

    def failed(self, error: BaseException) -> None:
        self._end("error.type", qualified_name(error))

    def faulted(self, fault: str) -> None:
        self._attributes["unsticky.fault"] = fault

    def cancelled(self) -> None:
        self._end("unsticky.cancelled", True)

    def _end(self, key: str, value: str | int) -> None:
        self._span.add_event("unsticky.attempt", {**self._attributes, key: value})


def start_attempt(traced: Traced, endpoint: Endpoint, clock: Clock, *, above: bool) -> AttemptSpan | Untraced:
    """The span of an attempt; where `above` says that there must be none, an event of the span that is there."""
    if not above:
        return AttemptSpan(traced, endpoint, clock)
    span = told_above()
    return UNTRACED if span is None else AttemptEvent(traced, endpoint, span)


def pool_event(pool: str, event: str, details: Mapping[str, str | int | float | bool]) -> None:
    """Count `event` ("ejection", "failover", ...), and note it on the current span."""
    attributes: Attributes = {"unsticky.pool": pool, **{f"unsticky.{key}": value for key, value in details.items()}}
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(f"unsticky.{event}", attributes)
    _pool_events.add(1, {"unsticky.pool": pool, "unsticky.event": event})


def span_ids() -> tuple[str | None, str | None]:
    """The trace and span id of the current span, in hex."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return None, None
    return trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id)


def is_traced() -> bool:
    """May there be a current span? The quick way to know, at every request."""
    return bool(context.get_current())


def session_loaded(seconds: float, found: bool) -> None:
    """The current request's session was looked up in the store. Never says which session."""
    if is_traced():
        _add_session_event("load", seconds, {"unsticky.session.found": found})


def session_committed(seconds: float, result: str) -> None:
    """The current request's session was written; `result` is a fixed word, such as "created" or "conflict"."""
    if is_traced():
        _add_session_event("commit", seconds, {"unsticky.session.result": result})


def session_event(kind: str) -> None:
    """Something happened to a session; `kind` as in SessionEvent. Counted without saying to which."""
    _session_events.add(1, {"unsticky.event": kind})


def stateless_violation(attributes: Mapping[str, str | int | float | bool]) -> None:
    """The guard found something: noted on the current span, and counted by its kind and verdict alone."""
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event("stateless.violation", attributes)
    _violations.add(1, {key: attributes[key] for key in ("stateless.kind", "stateless.verdict")})


def _add_session_event(name: str, seconds: float, attributes: Attributes) -> None:
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(f"unsticky.session.{name}", {"unsticky.session.duration": seconds, **attributes})
