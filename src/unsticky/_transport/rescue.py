"""What is done about a call that failed for good: its fallback, and who is told. Nothing here waits or sends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from ..errors import FailedAttempt, RoutingError
from ..pools import Pools, Served
from ..routing.call import Failure, Outcome
from ..routing.call_failed import CallFailed
from ..routing.classify import failed_attempt
from ..routing.failover_options import FallbackOptions
from ..telemetry.attributes import standard_method
from ..telemetry.log import pool_line
from ..telemetry.otel import pool_event, span_ids
from .exchange import Exchange

_log = logging.getLogger("unsticky.routing")
_OURS = (Failure.LOCAL, Failure.CANCELLED)  # another pool would fare no better


@dataclass(slots=True)
class Elsewhere:
    """Make the call over this pool, and send the response, or the exception."""

    served: Served
    until: float | None  # monotonic seconds


@dataclass(slots=True)
class Tell:
    """Call a handler. What it raises is logged, and changes nothing."""

    handler: Callable[[CallFailed], object]
    event: CallFailed


Steps = Generator[Elsewhere | Tell, Any, Any]  # receives a response or an exception


def rescue(pools: Pools, exchange: Exchange, error: Exception | None, outcome: Outcome | None) -> Steps:
    """Yield what to do. Returns the response that takes the place of the failed call's, or None: it stays as it is.

    `outcome` has the response if it is for its status that the call failed; it stays open meanwhile.
    """
    now = exchange.pool.clock.monotonic()
    attempts = _attempts(exchange, now)
    options, response, used = exchange.served.options.fallback, None, None
    if exchange.fallback and _applies(exchange, options, attempts, now):
        if options.pool is not None:
            reply = yield Elsewhere(pools.other(options.pool, exchange.served), exchange.deadline)
            response, used = (None, None) if isinstance(reply, Exception) else (reply, options.pool)
            if isinstance(reply, Exception) and error is not None:
                error.add_note(f"its fallback, the pool {options.pool!r}, failed too: {_named(reply)}")
        elif options.status is not None:
            response, used = exchange.library.answer(options, exchange.request.method), "response"
    status = None if outcome is None else outcome.status
    method = standard_method(exchange.request.method)
    event = CallFailed(
        exchange.pool.name, method, error, status, attempts, max(0.0, now - exchange.began), used, *span_ids()
    )
    _record(exchange, event)
    for handler in pools.handlers(event.pool):
        yield Tell(handler, event)
    if response is not None:
        _mark(response, event)
    return response


def _attempts(exchange: Exchange, now: float) -> tuple[FailedAttempt, ...]:
    ended = exchange.ended
    if isinstance(ended, RoutingError):
        return ended.attempts
    if ended is None:
        return ()
    return ended.failed or (failed_attempt(ended, now),)


def _applies(exchange: Exchange, options: FallbackOptions, attempts: tuple[FailedAttempt, ...], now: float) -> bool:
    ended, call = exchange.ended, exchange.call
    if isinstance(ended, Outcome) and ended.failure in _OURS:
        return False
    if options.methods is not None and call.method not in options.methods:
        return False
    if options.pool is None:
        return True
    if exchange.deadline is not None and now >= exchange.deadline:
        return False
    if all(attempt.failure == Failure.CONNECT.value for attempt in attempts):  # nothing was sent
        return True
    idempotent = call.method in exchange.served.options.retry.methods or bool(call.idempotent)
    return call.replayable and (idempotent or options.methods is not None)


def _named(error: BaseException) -> str:
    return str(error) if isinstance(error, RoutingError) else type(error).__name__


def _record(exchange: Exchange, event: CallFailed) -> None:
    """Count it, and say so on the span and in the log."""
    with exchange.pool.lock:
        exchange.pool.tally.failed[event.reason] += 1
        if event.fallback is not None:
            exchange.pool.tally.fallbacks[event.fallback] += 1
    why = "; ".join(map(str, event.attempts)) or (_named(event.error) if event.error else event.reason)
    told: dict[str, Any] = {"method": event.method, "attempts": len(event.attempts), "reason": event.reason}
    if event.fallback is not None:
        told["fallback"] = event.fallback
        pool_event(event.pool, "fallback", told)
    name = "call_failed" if event.fallback is None else "fallback"
    pool_line(event.pool, name, {**told, "why": why}, exchange.pool.clock.monotonic())


def _mark(response: Any, event: CallFailed) -> None:
    found = response.extensions.setdefault("unsticky", {"pool": event.pool, "attempts": len(event.attempts)})
    found["fallback"] = event.fallback
    if event.error is None:
        found["failed_status"] = event.status
    else:
        found["error"] = event.error


def tell(step: Tell) -> None:
    """Call a handler from a thread."""
    if iscoroutinefunction(step.handler):
        _log.error("a handler of on_error is a coroutine function, which calls of sync clients can't await")
        return
    try:
        step.handler(step.event)
    except Exception:
        _log.exception("a handler of on_error failed")


async def tell_async(step: Tell) -> None:
    """Call a handler on an event loop, and await what it returns, if that can be awaited."""
    try:
        result = step.handler(step.event)
        if isawaitable(result):
            await result
    except Exception:
        _log.exception("a handler of on_error failed")
