"""OpenTelemetry, with the API alone: one CLIENT span per attempt, its metric, and events on the caller's span.

Names follow the stable HTTP conventions (semantic conventions 1.44.0); what is ours is called `unsticky.*`.
An attempt's span ends at the response's headers, as does its duration: reading the body is the caller's pace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import __version__
from ..clock import Clock
from ..routing.call import Endpoint

_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_OURS = 2  # keys that an attempt's context has: its span, and the one below. More may be baggage.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_PORTS = {"http": 80, "https": 443}
_SUPPRESSES_BELOW = "opentelemetry.instrumentation.requests"  # what is below its span, which is ours to add to
_INSTRUMENTATIONS = ("opentelemetry.instrumentation.httpx", _SUPPRESSES_BELOW)  # the scopes of their spans

# Both keys are private names of the API; without them, spans double up beside contrib's class-level instrumentation.
_SUPPRESS_HTTP = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")
_SUPPRESS_ALL = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")

_USER = re.compile(r"(?<=://)[^/?#@]*@")
_SIGNATURES = re.compile(
    r"(?<=[?&])(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&#]*"
)

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

Attributes = dict[str, str | int | float | bool]


@dataclass(slots=True)
class Traced:
    """What spans say of one attempt. `url` is absolute; `host` is the Host header that is sent.

    Made anew for each attempt, so that it is not frozen: see `routing.call`.
    """

    pool: str
    method: str
    url: str
    host: str
    resend_count: int  # 0 for the first time that this request is sent
    rule: str | None = None  # the rule that sent the call there
    hedge: bool = False  # sent beside another attempt


class AttemptSpan:
    """The span of one attempt. Exactly one of `responded`, `failed`, `cancelled` ends it."""

    __slots__ = ("_clock", "_context", "_metric", "_span", "_started")

    def __init__(self, traced: Traced, endpoint: Endpoint, clock: Clock) -> None:
        attributes, self._metric = _attributes(traced, endpoint)
        method = traced.method
        self._clock = clock
        self._started = clock.monotonic()
        self._span = _tracer.start_span(
            method if method in _METHODS else "HTTP", kind=SpanKind.CLIENT, attributes=attributes
        )
        # One context for what is sent on and for what runs below, where contrib's instrumentation must add no span.
        self._context = context.set_value(_SUPPRESS_HTTP, True, trace.set_span_in_context(self._span))

    def headers(self) -> dict[str, str]:
        """What the configured propagator wants this attempt, and no other, to carry."""
        found = self._span.get_span_context()
        if found.trace_state or not found.is_valid or len(self._context) > _OURS or not _sends_w3c():
            return _injected(self._context)
        return {"traceparent": f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"}

    def sending(self) -> Attached:
        """Make the span current, and keep contrib's instrumentation of the transport below from adding another."""
        return Attached(self._context)

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
            self._metric = self._metric | seen
        self._end()

    def failed(self, error: BaseException) -> None:
        """No response. The error's text may hold user data, so that its type alone is recorded."""
        name = qualified_name(error)
        self._metric = self._metric | {"error.type": name}
        if self._span.is_recording():
            self._span.set_attribute("error.type", name)
        self._span.set_status(StatusCode.ERROR)
        self._end()

    def faulted(self, fault: str) -> None:
        """It waits ("delay") or fails ("abort") on purpose."""
        self._span.set_attribute("unsticky.fault", fault)

    def cancelled(self) -> None:
        """The caller went away, or another attempt was quicker, which is no error of this one."""
        self._span.set_attribute("unsticky.cancelled", True)
        self._end()

    def _end(self) -> None:
        if _metered():
            _duration.record(max(self._clock.monotonic() - self._started, 0.0), self._metric, self._context)
        self._span.end()


class Untraced:
    """Stands where an AttemptSpan would, when there must be none and there is nothing to add to."""

    __slots__ = ()

    def headers(self) -> dict[str, str]:
        return {}  # whoever made the span above has put its context into the request's headers

    def sending(self) -> Attached:
        return _AS_IT_IS if context.get_value(_SUPPRESS_HTTP) else suppressed()

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

    def sending(self) -> Attached:
        return _AS_IT_IS


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


class Attached:
    """A context that is current inside `with`."""

    __slots__ = ("_context", "_token")

    def __init__(self, attached: Context) -> None:
        self._context = attached

    def __enter__(self) -> None:
        self._token = context.attach(self._context)

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)


class _AsItIs(Attached):
    """The context that is current anyway."""

    def __init__(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_AS_IT_IS = _AsItIs()


def suppressed() -> Attached:
    """No spans for the HTTP requests inside: health checks are no one's call."""
    return Attached(context.set_value(_SUPPRESS_HTTP, True))


def start_attempt(traced: Traced, endpoint: Endpoint, clock: Clock, *, above: bool) -> AttemptSpan | Untraced:
    """The span of an attempt; where `above` says that there must be none, an event of the span that is there."""
    if not above:
        return AttemptSpan(traced, endpoint, clock)
    span = trace.get_current_span()
    told = span.is_recording() and (not _is_suppressed() or _scope(span) == _SUPPRESSES_BELOW)
    return AttemptEvent(traced, endpoint, span) if told else UNTRACED


def traced_above(transport: object, method: str) -> bool:
    """Whether contrib's instrumentation wraps this call already, or instrumentation is suppressed.

    `instrument_client` replaces `method` on the transport object with a wrapper. Where it wraps a transport around
    ours, its span is the current one.
    """
    if hasattr(vars(transport).get(method), "__wrapped__"):
        return True
    if not context.get_current():  # neither a span nor a wish
        return False
    if _is_suppressed():
        return True
    span = trace.get_current_span()
    return _scope(span) in _INSTRUMENTATIONS and span.is_recording()


def _scope(span: Span) -> str | None:
    """The name of the library that made a span."""
    scope = getattr(span, "instrumentation_scope", None)
    return None if scope is None else str(scope.name)


def _is_suppressed() -> bool:
    return bool(context.get_value(_SUPPRESS_HTTP) or context.get_value(_SUPPRESS_ALL))


def pool_event(pool: str, event: str, details: Mapping[str, str | int | float | bool]) -> None:
    """Count `event` ("ejection", "failover", ...), and note it on the current span."""
    attributes: Attributes = {"unsticky.pool": pool, **{f"unsticky.{key}": value for key, value in details.items()}}
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(f"unsticky.{event}", attributes)
    _pool_events.add(1, {"unsticky.pool": pool, "unsticky.event": event})


def standard_method(method: str) -> str:
    """`method`, or "_OTHER" if it is none of those that everybody has: what a program makes up may be anything."""
    return method if method in _METHODS else "_OTHER"


def span_ids() -> tuple[str | None, str | None]:
    """The trace and span id of the current span, in hex."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return None, None
    return trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id)


def session_loaded(seconds: float, found: bool) -> None:
    """The current request's session was looked up in the store. Never says which session."""
    if context.get_current():  # else there is no span: the quick way to know, at every request
        _add_session_event("load", seconds, {"unsticky.session.found": found})


def session_committed(seconds: float, result: str) -> None:
    """The current request's session was written; `result` is a fixed word, such as "created" or "conflict"."""
    if context.get_current():
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


def redacted(url: str) -> str:
    """`url` without user, password and the values of signature parameters."""
    if "@" in url:
        url = _USER.sub("REDACTED:REDACTED@", url)
    return _SIGNATURES.sub(r"\1=REDACTED", url) if "?" in url else url


def qualified_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@lru_cache(maxsize=4096)
def server(scheme: str, authority: str) -> tuple[str, int]:
    """Host without brackets, and port, of a Host header."""
    try:
        parts = urlsplit(f"//{authority}")
        return parts.hostname or authority, parts.port or _PORTS.get(scheme, 0)
    except ValueError:  # the caller's own Host header may be anything
        return authority, _PORTS.get(scheme, 0)


def _attributes(traced: Traced, endpoint: Endpoint) -> tuple[Attributes, Attributes]:
    """Of the span, all at its creation because samplers decide by them, and of the metric."""
    scheme = traced.url.partition("://")[0]
    fixed, metric = _fixed(traced.pool, traced.method, scheme, traced.host, endpoint)
    span = {**fixed, "url.full": redacted(traced.url)}
    if traced.resend_count:
        span["http.request.resend_count"] = traced.resend_count
    if traced.hedge:
        span["unsticky.hedge"] = True
    if traced.rule is not None:
        span["unsticky.rule"] = traced.rule
    return span, metric


@lru_cache(maxsize=4096)
def _fixed(pool: str, method: str, scheme: str, host: str, endpoint: Endpoint) -> tuple[Attributes, Attributes]:
    """What is the same for all such attempts. Nobody changes them."""
    known = method if method in _METHODS else "_OTHER"
    address, port = server(scheme, host)
    peer, peer_port = server(endpoint.url.partition("://")[0], endpoint.address)
    metric: Attributes = {"http.request.method": known, "server.address": address, "server.port": port}
    span: Attributes = {
        **metric,
        "network.peer.address": peer,
        "network.peer.port": peer_port,
        "peer.service": pool,
        "unsticky.pool": pool,
        "unsticky.endpoint": endpoint.address,
    }
    if known == "_OTHER":
        span["http.request.method_original"] = method
    if endpoint.priority:
        span["unsticky.endpoint.priority"] = endpoint.priority
    if endpoint.locality is not None:
        span["unsticky.endpoint.locality"] = endpoint.locality
    return span, metric
