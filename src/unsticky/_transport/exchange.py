"""One call over a pool: what both drivers share. Nothing here waits or sends."""

from __future__ import annotations

from math import inf
from typing import Any

from ..context import Arrival, current_arrival
from ..errors import RoutingError
from ..pools import Served
from ..routing.call import Attempt, Call, Outcome, Read, Send, Wait
from ..routing.classify import call_failed
from ..routing.flow import route
from ..routing.hashing import HashKey, hash_text
from ..telemetry.pool_events import report
from .call_options import DEFAULTS, CallOptions
from .hashed import HashedRequest
from .hop import RESEND, Hop
from .inbound import exceeded
from .library import Library
from .ways import Way

Command = Send | Wait | Read | Outcome | RoutingError


class Exchange:
    """A call on its way: the flow, what is sent for each attempt, and how it ends."""

    __slots__ = (
        "_attempts", "_flow", "_last", "_limit", "_resends", "_returned", "above", "arrival", "began", "call",
        "deadline", "ended", "fallback", "headers", "host", "latest", "library", "pool", "request", "served", "way",
    )  # fmt: skip

    def __init__(self, library: Library, served: Served, request: Any, way: Way | None = None, *, above: bool) -> None:
        """`way`: where the call goes if that is not simply over `served`."""
        self.library = library
        self.way = way
        served = served if way is None else way.served
        self.pool = served.pool
        self.request = request
        self.above = above  # an instrumentation above us has a span already
        self.served = served
        self.headers, self.host = _with_one_host(library, request, preserve=served.preserve)
        self.latest: Any = None  # the Hop
        self._attempts = 0
        self._resends = request.extensions.get(RESEND, 0)
        self._last: Outcome | None = None
        self._returned: Outcome | None = None
        given = request.extensions.get("unsticky")
        options = DEFAULTS if given is None else CallOptions.read(given)
        self.arrival: Arrival | None = current_arrival() if options.inbound else None
        self._limit: float | None = None  # monotonic seconds, if it is the inbound request that sets the deadline
        self.began = self.pool.clock.monotonic()
        self.fallback = options.fallback
        self.call = self._call(options)
        self.ended: Outcome | RoutingError | None = None  # how, when it has
        self._flow = route(served.pool, self.call)

    def _call(self, options: CallOptions) -> Call:
        served, request, retry = self.served, self.request, self.served.options.retry
        timeout = served.options.timeout if options.timeout is None else options.timeout
        deadline = None if timeout is None else self.began + timeout
        if self.way is not None and self.way.until is not None:
            deadline = min(self.way.until, inf if deadline is None else deadline)
        replayable = self.library.replayable(request.stream)
        if self.arrival is not None:
            deadline = self._within(self.arrival, deadline)
            replayable = replayable and not self.arrival.spares_retries
        self.deadline = deadline
        idempotent = options.idempotent
        if idempotent is None and request.method not in retry.methods and retry.idempotency_key:
            # draft-ietf-httpapi-idempotency-key-header
            idempotent = True if request.headers.get("idempotency-key") else None
        return Call(
            request.method,
            replayable=replayable,
            key=None if served.keys is None else self._key(served.keys, options.hash_key),
            deadline=deadline,
            retry=options.retry,
            prefer=None if self.way is None else self.way.prefer,
            idempotent=idempotent,
            hedge=options.hedge and self.pool.hedging is not None and self.library.shareable(request.stream),
            buffer=retry.buffer_body if options.buffer_body is None else options.buffer_body,
        )

    def _within(self, arrival: Arrival, deadline: float | None) -> float | None:
        """The sooner one of the call's own deadline and what the inbound request leaves it."""
        if arrival.latest is None or (deadline is not None and deadline <= arrival.latest):
            return deadline
        self._limit = arrival.latest
        return arrival.latest

    def _key(self, keys: tuple[HashKey, ...], given: str | None) -> int | None:
        return HashedRequest(self.request).key(keys) if given is None else hash_text(given)

    def step(self, outcome: Outcome | None) -> Command:
        """The flow's next command, or its end. What happened to the pool meanwhile is told."""
        self._last = outcome or self._last
        try:
            with self.pool.lock:
                return self._flow.send(outcome)
        except StopIteration as end:
            ended: Outcome = end.value
            self._returned = ended
            return ended
        except RoutingError as error:
            return error
        finally:
            if self.pool.has_news:
                report(self.pool)

    def close(self) -> None:
        """The caller went away: what is held is given back."""
        with self.pool.lock:
            self._flow.close()
        if self._returned is not None:
            self._returned.attempt.lease.release()

    def hop(self, attempt: Attempt) -> Hop:
        """What to send for `attempt`, with a span of its own."""
        resend, self._attempts = self._resends + self._attempts, self._attempts + 1
        self.request.extensions[RESEND] = resend + 1
        self.latest = hop = Hop(self, attempt, resend)
        return hop

    def seconds_left(self, attempt: Attempt) -> float | None:
        """Until the attempt's deadline."""
        return None if attempt.deadline is None else max(attempt.deadline - self.pool.clock.monotonic(), 0.001)

    def unread(self, outcome: Outcome, error: Exception | None, seconds: float | None) -> Outcome:
        """The body of the outcome's response broke off with `error`; without one, it was not there within `seconds`."""
        if error is None:
            error = self.library.late(f"no whole body within {seconds:.3g} seconds", self.request)
        failure = self.library.failure(error)
        return Outcome(outcome.attempt, failure=failure, error=error)

    def end(self, end: Outcome | RoutingError) -> Outcome:
        """The outcome with the response, or raise what the caller shall see."""
        last = self._last
        self.latest = None  # it knows this exchange: without a cycle, all goes as soon as the call is over
        if self.pool.error_rates:
            self._rate(end)
        if self._limit is not None:
            end = self._by_inbound(self._limit, end)
        self.ended = end
        if isinstance(end, RoutingError):
            error = self.library.raised(end, last.failure if last else None, self.request)
            raise error from (last.error if last else None)
        if end.failure is not None and end.error is not None:
            raise end.error
        response: Any = end.response
        response.extensions["unsticky"] = {
            "pool": self.pool.name,
            "endpoint": end.attempt.endpoint.address,
            "attempts": self._attempts,
        }
        if self.way is not None and self.way.rule is not None:
            response.extensions["unsticky"]["rule"] = self.way.rule
        return end

    def _rate(self, end: Outcome | RoutingError) -> None:
        """Count the call for the rules that look at the pool's error rate."""
        with self.pool.lock:
            self.pool.ended(failed=isinstance(end, RoutingError) or call_failed(end))

    def _by_inbound(self, limit: float, end: Outcome | RoutingError) -> Outcome | RoutingError:
        """Say so, if the call failed because the inbound request left it no more time."""
        failed = isinstance(end, RoutingError) or end.failure is not None
        if not failed or self.pool.clock.monotonic() < limit - _EARLY:
            return end
        return exceeded(self.pool.name, end, self._attempts)


_EARLY = 0.001  # timers may fire a little before their time


def _with_one_host(library: Library, request: Any, *, preserve: bool) -> tuple[Any, str | None]:
    """The caller's headers, and the Host among them where it is sent on: by the pool's rule, or as the caller chose it.

    Where it is not, each attempt names its endpoint instead.
    """
    hosts = [value for name, value in request.headers.raw if name.lower() == b"host"]
    host = hosts[0] if hosts else b""
    if not preserve and host == request.url.netloc:
        return request.headers, None
    if len(hosts) == 1:
        return request.headers, host.decode("latin-1")
    others = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
    return library.module.Headers([(b"Host", host), *others]), host.decode("latin-1")
