"""One call over a pool: what both drivers share. Nothing here waits or sends."""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import Any

from ..context import Arrival, current_arrival
from ..errors import RoutingError
from ..pools import Served
from ..routing.call import Attempt, Call, Failure, Outcome, Read, Send, Wait, authority
from ..routing.classify import call_failed
from ..routing.failover_options import FallbackOptions
from ..routing.faults import Fault
from ..routing.flow import route
from ..routing.hashing import hash_text
from ..routing.hops import OFF, attempt_text, deadline_header
from ..routing.load_report import FORMAT_HEADER, HEADER, LEGACY_HEADER
from ..routing.retry_options import RetryOptions
from ..routing.weights import Weighing
from ..telemetry import otel
from ..telemetry.pool_events import report
from .call_options import CallOptions
from .hashed import HashedRequest
from .inbound import exceeded
from .library import Library
from .progress import Progress
from .ways import Way

_RESEND = "unsticky.resend_count"  # in request.extensions, which httpx copies into the request of a redirect


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
        self.headers: list[tuple[bytes, bytes]] = request.headers.raw
        self.host = self._kept_host()
        self.latest: Any = None  # the Hop
        self._attempts = 0
        self._resends = request.extensions.get(_RESEND, 0)
        self._last: Outcome | None = None
        self._returned: Outcome | None = None
        options = CallOptions.read(request.extensions.get("unsticky"))
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
        return Call(
            request.method,
            replayable=replayable,
            key=self._key(options.hash_key),
            deadline=deadline,
            retry=options.retry,
            prefer=None if self.way is None else self.way.prefer,
            idempotent=self._idempotent(retry) if options.idempotent is None else options.idempotent,
            hedge=options.hedge and self.pool.hedging is not None and self.library.shareable(request.stream),
            buffer=retry.buffer_body if options.buffer_body is None else options.buffer_body,
        )

    def _idempotent(self, options: RetryOptions) -> bool | None:
        """True with an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header), else None."""
        method = self.request.method
        if method in options.methods or not options.idempotency_key:
            return None
        return True if self.request.headers.get("idempotency-key") else None

    def _within(self, arrival: Arrival, deadline: float | None) -> float | None:
        """The sooner one of the call's own deadline and what the inbound request leaves it."""
        if arrival.latest is None or (deadline is not None and deadline <= arrival.latest):
            return deadline
        self._limit = arrival.latest
        return arrival.latest

    def _kept_host(self) -> str | None:
        """The Host header as it came, where it is sent on: by the pool's rule, or because the caller chose it."""
        request = self.request
        host = next((value for name, value in self.headers if name.lower() == b"host"), b"")
        return host.decode("latin-1") if self.served.preserve or host != request.url.netloc else None

    def _key(self, given: str | None) -> int | None:
        if self.served.keys is None:
            return None
        return HashedRequest(self.request).key(self.served.keys) if given is None else hash_text(given)

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
            report(self.pool)

    def close(self) -> None:
        """The caller went away: what is held is given back."""
        with self.pool.lock:
            self._flow.close()
        if self._returned is not None:
            self._returned.attempt.lease.release()

    def hop(self, attempt: Attempt) -> Hop:
        """What to send for `attempt`, with a span of its own."""
        request = self.request
        resend, self._attempts = self._resends + self._attempts, self._attempts + 1
        request.extensions[_RESEND] = self._resends + self._attempts
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


class Hop:
    """One attempt's request to its endpoint."""

    __slots__ = ("_attempt", "_exchange", "_progress", "_timeouts", "origin", "request", "seconds", "span")
    span: otel.AttemptSpan | otel.Untraced

    def __init__(self, exchange: Exchange, attempt: Attempt, resend: int) -> None:
        self._exchange = exchange
        self._attempt = attempt
        deadline, now = attempt.deadline, exchange.pool.clock.monotonic()
        self.seconds = None if deadline is None else max(deadline - now, 0.001)  # until headers must be there
        library, request = exchange.library, exchange.request
        self.origin = attempt.endpoint.url
        url, text = _hop_url(library.module.URL, self.origin, request.url.raw_path)
        kept = exchange.host
        host = _authority(attempt.endpoint.url, attempt.endpoint.host) if kept is None else kept
        if exchange.above or otel.recorded():
            traced = self._traced(text if kept is None else str(request.url), host, resend)
            self.span = otel.start_attempt(traced, attempt.endpoint, exchange.pool.clock, above=exchange.above)
        else:
            self.span = otel.UNRECORDED
        self.request = library.module.Request(
            request.method,
            url,
            headers=_headers(exchange.headers, host, self._added()),
            stream=request.stream,
            extensions=self._extensions(request),
        )

    def _traced(self, url: str, host: str, resend: int) -> otel.Traced:
        exchange, rule = self._exchange, None
        if exchange.way is not None:
            rule = exchange.way.rule
        return otel.Traced(exchange.pool.name, exchange.request.method, url, host, resend, rule, self._attempt.hedge)

    def _added(self) -> dict[str, str]:
        """Headers of ours, in the place of the caller's own."""
        added = {**self.span.headers(), **self._onward()}
        weighing = self._exchange.pool.weighing
        if weighing is not None and weighing.asks:
            added[FORMAT_HEADER] = "text"
        return added

    def _onward(self) -> dict[str, str]:
        """How long we wait, and how often it was tried, for the next hop to go by."""
        exchange, found = self._exchange, {}
        propagate = exchange.served.options.propagate
        if self.seconds is not None and propagate.deadline != OFF:
            header = deadline_header(propagate.deadline)
            found[header.name] = header.write(self.seconds)
        # Those of the inbound request count too: hops further on must not take the first of ours for a fresh one.
        previous = self._attempt.resend_count + (exchange.arrival.previous_attempts if exchange.arrival else 0)
        if previous and propagate.attempt != OFF:
            found[propagate.attempt] = attempt_text(propagate.attempt, previous)
        return found

    def _extensions(self, request: Any) -> dict[str, Any]:
        """The caller's, with timeouts that end no later than the attempt does, and the name for TLS."""
        extensions = {key: value for key, value in request.extensions.items() if key not in ("unsticky", _RESEND)}
        self._timeouts: dict[str, Any] = extensions.get("timeout") or {}
        timeouts = self._timeouts
        if self.seconds is not None:
            timeouts = {name: _sooner(self._timeouts.get(name), self.seconds) for name in _PHASES}
        extensions["timeout"] = self._progress = Progress(timeouts)
        if self._exchange.served.preserve:  # by the URL: a Host header that a caller chose is no name to verify
            extensions.setdefault("sni_hostname", request.url.host)
        elif (name := self._attempt.endpoint.host) is not None:
            extensions.setdefault("sni_hostname", name)
        return extensions

    def responded(self, response: Any) -> Outcome:
        """Response headers came."""
        if self.seconds is not None:
            # The attempt's deadline ends here, and the body is read with the caller's timeouts: the transport below
            # looks into this mapping again when it starts to read.
            self._progress.update({name: self._timeouts.get(name) for name in _PHASES})
        version = response.extensions.get("http_version", b"HTTP/1.1").decode("ascii", "replace").removeprefix("HTTP/")
        self.span.responded(response.status_code, version)
        weighing = self._exchange.pool.weighing
        if weighing is not None and weighing.hears:
            self._hear(weighing, response.headers)
        return Outcome(
            self._attempt,
            status=response.status_code,
            headers=response.headers if response.status_code >= 400 else None,
            response=response,
        )

    def _hear(self, weighing: Weighing, headers: Any) -> None:
        """What the endpoint says of its load."""
        metrics, legacy = headers.get(HEADER), headers.get(LEGACY_HEADER)
        if metrics is not None or legacy is not None:
            weighing.hear(self._attempt.lease, metrics, legacy, self._exchange.pool.clock.monotonic())

    def failed(self, error: Exception) -> Outcome:
        """No response came."""
        self.span.failed(error)
        return Outcome(self._attempt, failure=self._exchange.library.failure(error), error=error)

    def fault(self) -> Fault | None:
        """What happens to it on purpose, if anything does."""
        pool = self._exchange.pool
        if pool.faults is None:
            return None
        with pool.lock:
            fault = pool.fault(pool.faults, self._attempt.endpoint)
        if fault is not None:
            self.span.faulted("delay" if fault.abort is None else "abort")
        return fault

    def made_up(self, failure: Failure, text: str) -> Exception:
        """What the caller's library raises in such a case."""
        exchange = self._exchange
        return exchange.library.made_up(failure, f"{text} (by faults of pool {exchange.pool.name})", exchange.request)

    def answered(self, status: int) -> Any:
        """A response that no endpoint sent."""
        return self._exchange.library.answer(FallbackOptions(status=status), self._exchange.request.method)

    def patience(self) -> float:
        """Seconds that an endpoint has for its headers: until the attempt's deadline, or by the caller's timeouts."""
        read = dict.get(self._progress, "read")
        return _sooner(read, inf if self.seconds is None else self.seconds)

    def waited(self) -> None:
        """A while of the attempt's time passed before it is sent."""
        if self.seconds is None:
            return
        self.seconds = self._exchange.seconds_left(self._attempt)
        self._progress.update({name: _sooner(self._timeouts.get(name), self.seconds or 0) for name in _PHASES})

    def bound_body(self, seconds: float) -> None:
        """The body is read with this limit for each read, unless the caller's is smaller."""
        self._progress["read"] = _sooner(self._timeouts.get("read"), seconds)

    def own_body(self) -> None:
        """Put between the transport below and the caller's body what `abandon` can cut."""
        self.request.stream = self._progress.guarded(self._exchange.library.module, self.request.stream)

    def abandon(self) -> None:
        """The attempt is late, or the caller is gone: it must begin to send no more, and read no more of the body."""
        self._progress.abandon(self._exchange.library.module.WriteError("the attempt was abandoned"))

    def late(self, waiting: str) -> Outcome:
        """The attempt's time was over. `waiting`: the phase it counts as, if it had no connection to wait for yet."""
        names, phase = self._exchange.library.module, self._progress.phase
        phase = waiting if phase == "pool" else phase
        kind = {"pool": names.PoolTimeout, "connect": names.ConnectTimeout}.get(phase, names.ReadTimeout)
        text = f"{_MISSED.get(phase, 'no response headers')} within {self.seconds:.3g} seconds"
        return self.failed(kind(text, request=self._exchange.request))


_EARLY = 0.001  # timers may fire a little before their time
_MISSED = {"pool": "no free connection", "connect": "not connected"}
_PHASES = ("connect", "read", "write", "pool")


def _sooner(seconds: float | None, other: float) -> float:
    return min(inf if seconds is None else seconds, other)


@lru_cache(maxsize=1024)
def _hop_url(kind: Any, origin: str, target: bytes) -> tuple[Any, str]:
    """The endpoint's URL for a target, and its text. Kept, as making one takes 30 us."""
    url = kind(origin).copy_with(raw_path=target)
    return url, str(url)


def _authority(url: str, host: str | None) -> str:
    return url.partition("://")[2] if host is None else authority(url, host)


def _headers(raw: list[tuple[bytes, bytes]], host: str, more: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """The caller's headers, untouched, but for Host and the trace context."""
    added = [(name.encode(), value.encode("latin-1", "replace")) for name, value in more.items()]
    replaced = {b"host", *(name.lower() for name, _ in added)}
    kept = [(name, value) for name, value in raw if name.lower() not in replaced]
    return [(b"Host", host.encode("latin-1", "replace")), *kept, *added]
