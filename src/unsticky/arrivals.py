"""What a request says of its deadline and of the attempts before it, read at its arrival: for ASGI and WSGI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .clock import Clock, SystemClock
from .context import Arrival, Deadline
from .routing.hop_options import InboundOptions
from .routing.hops import ENVOY_ATTEMPT, GRPC_ATTEMPT, deadline_header, previous_attempts, time_left

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LATE_BODY = b"The deadline of this request has passed.\n"


class Arrivals:
    """Makes the Arrival of each request, by the `[inbound]` settings."""

    def __init__(self, options: InboundOptions, *, pools: bool = False, clock: Clock | None = None) -> None:
        """`pools`: whether there are any, so that it matters whether a client is still there."""
        self.options = options
        self.listens = pools and options.cancel_on_disconnect
        self._clock = clock or SystemClock()
        names = {deadline_header(text).name for text in options.deadline_headers} | {ENVOY_ATTEMPT, GRPC_ATTEMPT}
        self._raw = {name.encode("latin-1"): name for name in names}
        self._keys = {f"HTTP_{name.upper().replace('-', '_')}": name for name in names}
        self._absent_from = self._keys.keys().isdisjoint
        self._always = options.timeout is not None

    def of_asgi(self, headers: Iterable[tuple[bytes, bytes]]) -> Arrival | None:
        """`headers`: as ASGI has them, names in lower case. None: there is nothing to know of it."""
        raw = self._raw
        found = {raw[name]: value.decode("latin-1") for name, value in headers if name in raw}
        if found or self._always:
            return self._of(found)
        return Arrival() if self.listens else None

    def of_wsgi(self, environ: WSGIEnvironment) -> Arrival | None:
        """`environ`: of the request. None: there is nothing to know of it."""
        if self._absent_from(environ.keys()) and not self._always:
            return None
        return self._of({name: environ[key] for key, name in self._keys.items() if key in environ})

    def expired(self, arrival: Arrival) -> bool:
        """Is the request to be answered with 504 at once?"""
        deadline = arrival.deadline
        return deadline is not None and self.options.reject_expired and not deadline.remaining()

    def _of(self, found: Mapping[str, str]) -> Arrival:
        arrival, options = Arrival(), self.options
        seconds = time_left(found, options)
        if seconds is not None:
            at = self._clock.monotonic() + seconds
            arrival.deadline, arrival.latest = Deadline(at, self._clock.monotonic), at - options.reserve
        arrival.previous_attempts = previous_attempts(found)
        arrival.spares_retries = arrival.previous_attempts > 0 and not options.retry_on_retry
        return arrival
