"""One attempt's request to its endpoint, and what came of it."""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any

from ..routing.call import Attempt, Failure, Outcome, authority
from ..routing.failover_options import FallbackOptions
from ..routing.faults import Fault
from ..routing.hops import OFF, attempt_text, deadline_header
from ..routing.load_report import FORMAT_HEADER, HEADER, LEGACY_HEADER
from ..routing.weights import Weighing
from ..telemetry import otel
from ..telemetry.attributes import Traced
from ..telemetry.contexts import told_above
from .progress import Progress, sooner

if TYPE_CHECKING:
    from .exchange import Exchange

RESEND = "unsticky.resend_count"  # in request.extensions, which httpx copies into the request of a redirect


class Hop:
    """One attempt's request to its endpoint."""

    __slots__ = ("_attempt", "_exchange", "_progress", "_timeouts", "origin", "request", "seconds", "span")
    span: otel.AttemptSpan | otel.Untraced

    def __init__(self, exchange: Exchange, attempt: Attempt, resend: int) -> None:
        self._exchange = exchange
        self._attempt = attempt
        deadline, endpoint, request = attempt.deadline, attempt.endpoint, exchange.request
        # Until headers must be there.
        self.seconds = None if deadline is None else max(deadline - exchange.pool.clock.monotonic(), 0.001)
        self.origin = endpoint.url
        names = exchange.library.module
        url, text = _hop_url(names.URL, endpoint.url, request.url.raw_path)
        host = _authority(endpoint.url, endpoint.host) if exchange.host is None else exchange.host
        self.span = otel.UNRECORDED
        if exchange.above or otel.recorded():
            self.span = self._described(text, host, resend)
        headers = names.Headers(exchange.headers)  # a copy
        if exchange.host is None:
            headers["Host"] = host
        for name, value in self._added():
            headers[name] = value
        # A copy of the caller's: Request would look at all of it again.
        self.request = copied = names.Request.__new__(names.Request)
        copied.__dict__.update(request.__dict__, url=url, headers=headers, extensions=self._extensions(request))

    def _described(self, text: str, host: str, resend: int) -> otel.AttemptSpan | otel.Untraced:
        exchange, attempt = self._exchange, self._attempt
        if exchange.above and told_above() is None:
            return otel.UNTRACED
        rule = None if exchange.way is None else exchange.way.rule
        url = text if exchange.host is None else str(exchange.request.url)
        traced = Traced(exchange.pool.name, exchange.request.method, url, host, resend, rule, attempt.hedge)
        return otel.start_attempt(traced, attempt.endpoint, exchange.pool.clock, above=exchange.above)

    def _added(self) -> list[tuple[str, str]]:
        """Headers of ours, in the place of the caller's own."""
        exchange, added = self._exchange, [*self.span.headers().items()]
        propagate = exchange.served.options.propagate
        if self.seconds is not None and propagate.deadline != OFF:  # how long we wait, for the next hop to go by
            header = deadline_header(propagate.deadline)
            added.append((header.name, header.write(self.seconds)))
        # Those of the inbound request count too: hops further on must not take the first of ours for a fresh one.
        previous = self._attempt.resend_count + (exchange.arrival.previous_attempts if exchange.arrival else 0)
        if previous and propagate.attempt != OFF:
            added.append((propagate.attempt, attempt_text(propagate.attempt, previous)))
        weighing = exchange.pool.weighing
        if weighing is not None and weighing.asks:
            added.append((FORMAT_HEADER, "text"))
        return added

    def _extensions(self, request: Any) -> dict[str, Any]:
        """The caller's, with timeouts that end no later than the attempt does, and the name for TLS."""
        extensions = dict(request.extensions)
        extensions.pop("unsticky", None)
        extensions.pop(RESEND, None)
        self._timeouts: dict[str, Any] = extensions.get("timeout") or {}
        extensions["timeout"] = self._progress = Progress(self._timeouts)
        if self.seconds is not None:
            self._progress.bound(self.seconds)
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
            self._progress.restore(self._timeouts)
        status = response.status_code
        if self.span is not otel.UNRECORDED:
            self.span.responded(status, _version(response.extensions.get("http_version", b"HTTP/1.1")))
        weighing = self._exchange.pool.weighing
        if weighing is not None and weighing.hears:
            self._hear(weighing, response.headers)
        return Outcome(self._attempt, status, response.headers if status >= 400 else None, response=response)

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
        return sooner(read, inf if self.seconds is None else self.seconds)

    def waited(self) -> None:
        """A while of the attempt's time passed before it is sent."""
        if self.seconds is None:
            return
        self.seconds = self._exchange.seconds_left(self._attempt)
        self._progress.restore(self._timeouts)
        self._progress.bound(self.seconds or 0)

    def bound_body(self, seconds: float) -> None:
        """The body is read with this limit for each read, unless the caller's is smaller."""
        self._progress["read"] = sooner(self._timeouts.get("read"), seconds)

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


_MISSED = {"pool": "no free connection", "connect": "not connected"}


@lru_cache(maxsize=1024)
def _hop_url(kind: Any, origin: str, target: bytes) -> tuple[Any, str]:
    """The endpoint's URL for a target, and its text. Kept, as making one takes 30 us."""
    url = kind(origin).copy_with(raw_path=target)
    return url, str(url)


@lru_cache(maxsize=1024)
def _authority(url: str, host: str | None) -> str:
    return url.partition("://")[2] if host is None else authority(url, host)


@lru_cache(maxsize=8)
def _version(protocol: bytes) -> str:
    return protocol.decode("ascii", "replace").removeprefix("HTTP/")
