"""The library's own transports below ours, by endpoint and TLS server name.

httpcore looks at all connections of a pool several times for each request, so that a pool for all endpoints costs more
with each of them, and with each call at the same time. Here a transport has one connection, and an endpoint a stack of
transports: taking one costs the same however many there are, and the one that was used last is the next, so that few
stay open. Mocks of the library's transports, and of httpcore, see every request.

Where requests share connections (`http2=True`), or `limits` are the caller's, an endpoint has one transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any, Protocol

from ..clock import Clock
from .library import Library

SWEEP = 10.0  # seconds; a connection that was not used for one to two of them is closed
# And is not used again after that. Not httpx's 5: of connections that a peak of calls opens, the last ones rest for
# longer than that between two peaks, so that under steady load calls would go on connecting.
KEEP = 2 * SWEEP


class Stock(Protocol):
    """The transports to one endpoint. For any thread; never waits."""

    def take(self) -> Any:
        """A transport for one request."""

    def give_back(self, transport: Any, *, whole: bool) -> bool:
        """Whether it is kept: if not, the caller closes it. `whole`: the response was read to its end."""

    def spare(self) -> list[Any]:
        """Those that were not used since this was asked last. They are the caller's to close."""

    def end(self) -> list[Any]:
        """All of them, to be closed. Nothing is kept any more."""

    def busy(self) -> int:
        """How many requests are under way."""

    def idle(self) -> list[Any]:
        """Transports that wait for one."""


class OneEach:
    """A transport for each request: a stack of idle ones, the last used on top."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._idle: deque[Any] = deque()
        self._busy: set[Any] = set()
        self._unused = 0  # at the bottom of the stack, since `spare` was asked
        self._ended = False

    def take(self) -> Any:
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = self._make()
        self._unused = min(self._unused, len(self._idle))
        self._busy.add(transport)
        return transport

    def give_back(self, transport: Any, *, whole: bool) -> bool:
        self._busy.discard(transport)
        if not whole or self._ended or _holds_more(transport):
            return False
        self._idle.append(transport)
        return True

    def spare(self) -> list[Any]:
        found = [self._idle.popleft() for _ in range(min(self._unused, len(self._idle)))]
        self._unused = len(self._idle)
        return found

    def end(self) -> list[Any]:
        self._ended = True
        return [*self._idle, *self._busy]

    def busy(self) -> int:
        return len(self._busy)

    def idle(self) -> list[Any]:
        return list(self._idle)


def _holds_more(transport: Any) -> bool:
    """Whether more was read than the response: httpcore would take it for the response to the next request.

    Bytes that come later make an idle connection readable, which httpcore sees itself.
    """
    try:
        connection = transport._pool._connections[0]._connection
        while not hasattr(connection, "_h11_state"):  # a proxy's is one more around it
            connection = connection._connection
        return bool(connection._h11_state._receive_buffer._data)  # as `trailing_data`, which costs ten times as much
    except (AttributeError, IndexError):  # HTTP/2, a mock, or closed already
        return False


class OneForAll:
    """One transport, which keeps what it keeps."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._transport: Any = None
        self._busy: deque[None] = deque()  # a count that needs no lock
        self._used = False

    def take(self) -> Any:
        self._used = True
        self._busy.append(None)
        if self._transport is None:
            self._transport = self._make()
        return self._transport

    def give_back(self, transport: Any, *, whole: bool) -> bool:
        self._busy.pop()
        return transport is self._transport

    def spare(self) -> list[Any]:
        used, self._used = self._used, False
        return [] if used or self._busy else self.end()

    def end(self) -> list[Any]:
        transport, self._transport = self._transport, None
        return [] if transport is None else [transport]

    def busy(self) -> int:
        return len(self._busy)

    def idle(self) -> list[Any]:
        return [] if self._transport is None else [self._transport]


class Inner:
    """All transports below one of ours: one stock per endpoint and TLS name, and one transport for all other hosts.

    httpcore reuses a connection by its address alone: one that was verified for one `match` origin must not carry
    calls to another. There are as many names as settings name, and the program's own `sni_hostname` extensions.
    """

    def __init__(self, make: Maker, kind: Callable[[Stock], Any], *, shared: bool, clock: Clock) -> None:
        """`kind` makes a transport of a stock, that sends; `shared`: one transport for all calls to an endpoint."""
        self._make = make
        self._kind = kind
        self._stock: Callable[[Callable[[], Any]], Stock] = OneForAll if shared else OneEach
        self._clock = clock
        self._found: dict[tuple[str, str | None], tuple[Any, Stock]] = {}
        self._straight: dict[str | None, Any] = {}
        self._sweep_at = -inf

    def straight(self, request: Any) -> Any:
        """For a request to a host that is not a pool's."""
        name = request.extensions.get("sni_hostname") if request.url.scheme == "https" else None
        found = self._straight.get(name)
        return self._straight.setdefault(name, self._make()()) if found is None else found

    def of(self, origin: str, request: Any) -> Any:
        """For a request to the endpoint at `origin`."""
        secure = origin.startswith("https")
        name = request.extensions.get("sni_hostname") if secure else None
        found = self._found.get((origin, name))
        if found is None:
            stock = self._stock(self._make(secure=secure))
            found = self._found.setdefault((origin, name), (self._kind(stock), stock))
        return found[0]

    def swept(self) -> list[Any]:
        """Transports that are no longer needed, to be closed: asked before each call, it looks for them now and then.

        An endpoint that left its pool is one that is not used.
        """
        now = self._clock.monotonic()
        if now < self._sweep_at:
            return []
        self._sweep_at = now + SWEEP
        return [transport for stock in self._stocks() for transport in stock.spare()]

    def end(self) -> list[Any]:
        """All transports, to be closed."""
        found = [*self._straight.values(), *(one for stock in self._stocks() for one in stock.end())]
        self._straight, self._found = {}, {}
        return found

    def busy(self) -> int:
        """How many requests to endpoints are under way, or have responses that are open."""
        return sum(stock.busy() for stock in self._stocks())

    def idle(self) -> list[Any]:
        """Transports to endpoints that wait for a request."""
        return [transport for stock in self._stocks() for transport in stock.idle()]

    def _stocks(self) -> Iterable[Stock]:
        return [stock for _, stock in list(self._found.values())]


def shares(options: dict[str, Any]) -> bool:
    """Whether calls to an endpoint share one transport: they do where it has something to share, or to limit."""
    limits = options.get("limits")
    limited = limits is not None and (limits.max_connections, limits.max_keepalive_connections) != (None, None)
    return bool(options.get("http2")) or limited


class Maker:
    """Makes the library's ordinary transports. They share a TLS context: making one takes 20 ms and 0.5 MB.

    Without limits unless they are given: httpcore compares them with all connections, busy or not.
    """

    def __init__(
        self, library: Library, name: str, options: dict[str, Any], made: Callable[[Any], None] | None = None
    ) -> None:
        """`made` is called with each transport whose connections are not `secure`."""
        self._made = made
        self._create_context = library.module.create_ssl_context
        self._kind = getattr(library.module, name)
        self._tls = {key: value for key, value in options.items() if key in _OF_TLS}
        limits = library.module.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP)
        self._others = {"limits": limits, **{key: value for key, value in options.items() if key not in _OF_TLS}}
        self._context: SSLContext | None = None
        self._no_context = SSLContext(PROTOCOL_TLS_CLIENT)  # trusts nobody, and is never used

    def __call__(self, *, secure: bool = True) -> Callable[[], Any]:
        """For connections that are `secure`, or may be. Takes its time the first time."""
        if secure and self._context is None:
            self._context = self._create_context(**self._tls)
        make = partial(self._kind, verify=self._context if secure else self._no_context, **self._others)
        return make if secure or self._made is None else partial(_and_then, make, self._made)


def _and_then(make: Callable[[], Any], made: Callable[[Any], None]) -> Any:
    transport = make()
    made(transport)
    return transport


_OF_TLS = ("verify", "cert", "trust_env")
