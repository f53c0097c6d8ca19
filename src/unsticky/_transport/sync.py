"""The driver for threads. It ignores how long the flow would wait for an attempt, so it never hedges."""

from __future__ import annotations

import time
import weakref
from collections import deque
from functools import partial
from threading import Lock
from typing import Any, ClassVar

from ..pools import Pools, Served
from ..routing.call import Attempt, Outcome, Read, Send, Wait
from ..telemetry.contexts import AS_IT_IS, traced_above
from ..worker import Hold, in_forked_children, worker
from .beginnings import Beginning, worth_reading
from .connections import Inner, Maker, shares
from .endpoint import EndpointTransport
from .exchange import Exchange
from .hop import Hop
from .injection import injected
from .library import Library
from .rescue import Elsewhere, rescue, tell
from .streams import OpenBody
from .ways import chosen


class SyncDriver:
    """What `PoolTransport` does. `transport` is the innermost hop; unset, those of the library: see
    `connections`.

    For any thread. Survives a fork, but for a `transport` of the caller's own.
    """

    library: ClassVar[Library]

    def __init__(self, pools: Pools, transport: Any = None, **options: Any) -> None:
        """`options` are those of the library's HTTPTransport: verify, cert, http2, limits, ..."""
        self._pools = pools
        self._options = options
        self._given = transport
        self._bodies = _Bodies()
        self._of_parents: list[Any] = []
        self._forget()
        in_forked_children(self._forget)

    def _forget(self) -> None:
        """Connections are not shared with a parent process; what is left of its own is kept and never used."""
        self._of_parents.append((vars(self).get("_inner"), self._bodies))
        self._lock = Lock()
        self._inner: Inner | None = None
        self._bodies = _Bodies()

    def handle(self, request: Any) -> Any:
        self._bodies.close_dropped()
        served = self._pools.find(request.url.scheme, request.url.host, request.url.port)
        if served is None:
            return self._straight(request).handle_request(request)
        return self._answered(request, served)

    def _answered(self, request: Any, served: Served, until: float | None = None) -> Any:
        """The response over a pool, or over what steps in for it."""
        way = chosen(self._pools, served, request, until) if served.rules or until is not None else None
        exchange = Exchange(self.library, served, request, way, above=traced_above(self, "handle_request"))
        try:
            outcome = self._drive(exchange)
        except Exception as error:
            if exchange.ended is None or (response := self._rescued(exchange, error, None)) is None:
                raise
            return response
        if outcome.status in exchange.served.failing:
            return self._instead(exchange, outcome)
        return self._response_of(outcome)

    def _instead(self, exchange: Exchange, outcome: Outcome) -> Any:
        """The fallback's response in the place of the one in `outcome`, which stays open until there is one."""
        try:
            response = self._rescued(exchange, None, outcome)
        except BaseException:
            outcome.attempt.lease.release()
            _discard(outcome)
            raise
        if response is None:
            return self._response_of(outcome)
        outcome.attempt.lease.release()
        _discard(outcome)
        return response

    def _rescued(self, exchange: Exchange, error: Exception | None, outcome: Outcome | None) -> Any:
        """The response of the fallback, or None. Handlers are told."""
        steps, reply = rescue(self._pools, exchange, error, outcome), None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as end:
                return end.value
            if isinstance(step, Elsewhere):
                reply = self._elsewhere(exchange.request, step)
            else:
                tell(step)
                reply = None

    def _elsewhere(self, request: Any, step: Elsewhere) -> Any:
        try:
            return self._answered(request, step.served, step.until)
        except Exception as error:
            return error

    def _response_of(self, outcome: Outcome) -> Any:
        response: Any = outcome.response
        if response.is_closed or outcome.attempt.lease.released:  # it is read already
            outcome.attempt.lease.release()
        else:
            self._bodies.keep_worker()
            body = OpenBody(response.stream, outcome.attempt.lease, self._bodies.open)
            response.stream = self.library.stream(body, self._bodies.dropped)
        return response

    def _drive(self, exchange: Exchange) -> Outcome:
        try:
            if (first := exchange.served.first) is not None and first.pending:
                first.wait(exchange.deadline)
            command = exchange.step(None)
            while True:
                outcome = None
                if isinstance(command, Send):
                    outcome = self._send(exchange, command.attempt)
                elif isinstance(command, Wait):
                    time.sleep(command.seconds)  # noqa: TID251 - drivers sleep
                elif isinstance(command, Read):
                    outcome = self._read(exchange, command)
                else:
                    break
                command = exchange.step(outcome)
                if outcome is not None and command is not outcome and not isinstance(command, Read):
                    _discard(outcome)
        except BaseException:
            exchange.close()
            raise
        return exchange.end(command)

    def _read(self, exchange: Exchange, command: Read) -> Outcome:
        """The beginning of a body, or all of it: its endpoint's place is given back then."""
        outcome, limit = command.outcome, command.limit
        response: Any = outcome.response
        if response.is_closed or not worth_reading(response, limit):
            return outcome
        seconds = exchange.seconds_left(outcome.attempt)
        if seconds is not None:
            exchange.latest.bound_body(seconds)
        beginning = response.stream = Beginning(response.stream)
        try:
            whole = _read_up_to(limit, beginning, exchange, outcome.attempt)
        except Exception as error:
            _discard(outcome)
            return exchange.unread(outcome, error, seconds)
        except BaseException:
            _discard(outcome)
            raise
        if whole is None:
            _discard(outcome)
            return exchange.unread(outcome, None, seconds)
        if whole:
            _discard(outcome)
            outcome.attempt.lease.release()
            response.stream = self.library.module.ByteStream(b"".join(beginning.chunks))
        return outcome

    def _send(self, exchange: Exchange, attempt: Attempt) -> Outcome:
        hop = exchange.hop(attempt)
        attached = hop.span.sending()
        try:
            if attached is AS_IT_IS:
                response = self._response(exchange, hop)
            else:
                with attached:
                    response = self._response(exchange, hop)
        except Exception as error:
            return hop.failed(error)
        except BaseException:
            hop.span.cancelled()
            raise
        return hop.responded(response)

    def _response(self, exchange: Exchange, hop: Hop) -> Any:
        if exchange.pool.faults is not None and (response := injected(hop)) is not None:
            return response
        return self._transport(hop.origin, hop.request).handle_request(hop.request)

    def _straight(self, request: Any) -> Any:
        """For a request to a host that is not a pool's."""
        return self._below().straight(request) if self._given is None else self._given

    def _transport(self, origin: str, request: Any) -> Any:
        """For a request to the endpoint at `origin`."""
        if self._given is not None:
            return self._given
        inner = self._inner or self._below()
        for unused in inner.swept():
            unused.close()
        return inner.of(origin, request)

    def _below(self) -> Inner:
        if self._inner is None:
            with self._lock:
                if self._inner is None:
                    make = Maker(self.library, "HTTPTransport", self._options)
                    kind = partial(EndpointTransport, self.library.module)
                    self._inner = Inner(make, kind, shared=shares(self._options), clock=self._pools.clock)
        return self._inner

    def close(self) -> None:
        self._bodies.close()
        with self._lock:
            inner, self._inner = self._inner, None
        if self._given is not None:
            self._given.close()
        for transport in [] if inner is None else inner.end():
            transport.close()


class _Bodies:
    """The bodies that are open, and those whose responses were dropped unread.

    A dropped one is closed by the worker's thread, or by the next call: the garbage collector may find it anywhere,
    also inside of a lock that closing would need.
    """

    def __init__(self) -> None:
        self.open: set[OpenBody] = set()
        self._dropped: deque[OpenBody] = deque()
        self._hold: Hold | None = None
        self._lock = Lock()

    def dropped(self, body: OpenBody) -> None:
        """Called by the garbage collector: takes no lock."""
        self._dropped.append(body)
        worker.call_soon(self.close_dropped)

    def close_dropped(self) -> None:
        while self._dropped:
            try:
                body = self._dropped.popleft()
            except IndexError:  # another thread was quicker
                return
            if body.end():
                body.stream.close()

    def keep_worker(self) -> None:
        """See that the worker is there when a response is dropped, because a garbage collector can't start it."""
        if self._hold is not None:
            return
        with self._lock:
            if self._hold is None:
                self._hold = hold = worker.hold()
                # In the worker's thread, because a finalizer must not take the worker's lock.
                weakref.finalize(self, worker.call_soon, hold.release).atexit = False

    def close(self) -> None:
        self.close_dropped()
        with self._lock:
            hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()


def _read_up_to(limit: int, beginning: Beginning, exchange: Exchange, attempt: Attempt) -> bool | None:
    """Whether that is the whole body; None when the attempt's time was over first."""
    for within in beginning.read(limit):
        if not within:
            return False
        if attempt.deadline is not None and exchange.pool.clock.monotonic() >= attempt.deadline:
            return None
    return True


def _discard(outcome: Outcome) -> None:
    """Close the outcome's response, if it has one."""
    response: Any = outcome.response
    if response is not None:
        response.stream.close()
