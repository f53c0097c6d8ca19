"""OpenTelemetry's context around a call: what is above it, and what is current while an attempt is sent."""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

_SUPPRESSES_BELOW = "opentelemetry.instrumentation.requests"  # what is below its span, which is ours to add to
_INSTRUMENTATIONS = ("opentelemetry.instrumentation.httpx", _SUPPRESSES_BELOW)  # the scopes of their spans

# Both keys are private names of the API; without them, spans double up beside contrib's class-level instrumentation.
_SUPPRESS_HTTP = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")
_SUPPRESS_ALL = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
_SPAN = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))  # the key of a context's span


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


AS_IT_IS = _AsItIs()


def below(current: Context, span: Span) -> Context:
    """`current` with `span`, where contrib's instrumentation of the transport below adds no other."""
    return Context({**current, _SPAN: span, _SUPPRESS_HTTP: True})


def untouched() -> Attached:
    """For what runs below a span that somebody else made."""
    return AS_IT_IS if context.get_value(_SUPPRESS_HTTP) else suppressed()


def suppressed() -> Attached:
    """No spans for the HTTP requests inside: health checks are no one's call."""
    return Attached(context.set_value(_SUPPRESS_HTTP, True))


def told_above() -> Span | None:
    """The span that is there, if attempts are to be events of it."""
    span = trace.get_current_span()
    told = span.is_recording() and (not _is_suppressed(context.get_current()) or _scope(span) == _SUPPRESSES_BELOW)
    return span if told else None


def traced_above(transport: object, method: str) -> bool:
    """Whether contrib's instrumentation wraps this call already, or instrumentation is suppressed.

    `instrument_client` replaces `method` on the transport object with a wrapper. Where it wraps a transport around
    ours, its span is the current one.
    """
    if (wrapper := vars(transport).get(method)) is not None and hasattr(wrapper, "__wrapped__"):
        return True
    current = context.get_current()
    if not current:  # neither a span nor a wish
        return False
    if _is_suppressed(current):
        return True
    span = trace.get_current_span()
    return _scope(span) in _INSTRUMENTATIONS and span.is_recording()


def _scope(span: Span) -> str | None:
    """The name of the library that made a span."""
    scope = getattr(span, "instrumentation_scope", None)
    return None if scope is None else str(scope.name)


def _is_suppressed(current: Context) -> bool:
    return bool(current.get(_SUPPRESS_HTTP) or current.get(_SUPPRESS_ALL))
