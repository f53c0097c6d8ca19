"""Pools: what a program holds to make calls over its pools of endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from os import PathLike
from random import Random
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload
from urllib.parse import urlsplit
from weakref import WeakSet
from zoneinfo import ZoneInfo

from httpx import URL, InvalidURL

from .clock import Clock, SystemClock
from .discovery import Discoveries, FirstSet, Follower, open_sources
from .errors import SettingsError
from .jar import Jar
from .probes import Probes, problems
from .proxies import mounts
from .routing.call_failed import CallFailed as CallFailed
from .routing.discovery import DiscoveryStatus, Source
from .routing.endpoint import EndpointStatus
from .routing.explain import Explained, explain
from .routing.hashing import HashKey, parse_hash_keys
from .routing.options import HASHING, PoolOptions
from .routing.pool import Pool
from .routing.rules import Rule, rules_from
from .settings import Settings, find, read
from .tables import aside
from .telemetry.pool_metrics import reported
from .worker import in_forked_children

if TYPE_CHECKING:
    from httpx import AsyncClient, Client

_PORTS = {"http": 80, "https": 443}
_OF_TRANSPORTS = frozenset(
    {"verify", "cert", "http1", "http2", "limits", "uds", "local_address", "socket_options", "proxy"}
)
_WAYS = frozenset({"transport", "proxy", "uds"})  # to wherever: there is no other one
Handler = Callable[[CallFailed], object]
H = TypeVar("H", bound=Handler)
Origin = tuple[str, str, int | None]  # scheme, host in lower case, port


@dataclass(frozen=True, slots=True)
class Served:
    """A pool, and how calls to one of its names are sent."""

    pool: Pool
    options: PoolOptions
    preserve: bool  # the Host header
    keys: tuple[HashKey, ...] | None  # None: the balancer does not hash
    first: FirstSet | None = None  # of endpoints that are found; None: there are others
    rules: tuple[Rule, ...] = ()
    failing: frozenset[int] = frozenset()  # statuses that its fallback is for
    matched: bool = False  # by one of `match`, not by the pool's name


class Pools:
    """All pools of a program, and clients over them.

        pools = Pools.from_settings("unsticky.toml")
        with pools.client() as client:
            client.get("http://catalog/items")

    For any thread and any event loop. Discovery and active health checks begin with the first call or with `start`, in
    the worker's thread, and end with `close`. A forked child has pools of its own, with nothing known about their
    endpoints yet.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        discovery: Mapping[str, Source] | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        """`discovery`: where the endpoints of a pool come from, by its name. Raises SettingsError."""
        self.settings = settings
        self.clock = clock or SystemClock()
        self._random = random
        self._given = {name.lower(): source for name, source in (discovery or {}).items()}
        self._clients: WeakSet[Any] = WeakSet()
        self._handlers: list[tuple[str | None, Handler]] = []
        self._begin()
        in_forked_children(self._begin)

    @classmethod
    def from_settings(
        cls,
        source: str | PathLike[str] | Mapping[str, object] | Settings | None = None,
        *,
        discovery: Mapping[str, Source] | None = None,
    ) -> Self:
        """From a TOML file, a mapping of its shape, or Settings; None looks for them. Raises SettingsError."""
        found = find(source)
        try:
            return cls(read(found), discovery=discovery)
        except SettingsError as error:
            raise SettingsError(found.title, error.problems) from error

    def _begin(self) -> None:
        sources, wrong = open_sources(self.settings.pools, self._given, self.clock)
        if found := problems(self.settings.pools) + wrong:
            raise SettingsError("settings", found)
        random = self._random or Random()  # a forked child must not repeat its parent's choices
        self._lock = Lock()
        self._pools = {
            name.lower(): self._pool(name.lower(), options, random) for name, options in self.settings.pools.items()
        }
        self._followers = {
            name.lower(): Follower(self._pools[name.lower()], options, source)
            for name, (options, source) in sources.items()
        }
        self._others: dict[tuple[str, bool], Served] = {}
        self._served = dict(self._routes())
        self._probes: Probes | None = None
        self._discoveries: Discoveries | None = None

    def _pool(self, name: str, options: PoolOptions, random: Random) -> Pool:
        lock = Lock()
        return Pool(name, options, self.clock, random, lock=lock, locality=self.settings.locality, aside=aside(lock))

    def _routes(self) -> list[tuple[Origin, Served]]:
        found: list[tuple[Origin, Served]] = []
        for name, options in self.settings.pools.items():
            pool = self._pools[name.lower()]
            keys = parse_hash_keys(options.hash.on) if options.balancer in HASHING else None
            follower = self._followers.get(name.lower())
            first = follower.first if follower else None
            rules = rules_from(options.rules, options.limits.maximum_in_flight, ZoneInfo)
            failing = options.fallback.statuses
            named = Served(pool, options, options.host == "preserve", keys, first, rules, failing)
            matched = Served(pool, options, options.host != "endpoint", keys, first, rules, failing, matched=True)
            self._others[name.lower(), False], self._others[name.lower(), True] = named, matched
            found += [((scheme, pool.name, None), named) for scheme in _PORTS]
            found += [(_origin(origin), matched) for origin in options.match]
        return found

    def other(self, name: str, like: Served) -> Served:
        """The pool `name`, for a call that came by a name or by an origin, as one that `like` serves did."""
        return self._others[name, like.matched]

    def find(self, scheme: str, host: str, port: int | None) -> Served | None:
        """Who serves this origin; None: no pool does. `port` is None when the URL names none, or the default one.

        `host` may be in either of its forms, Unicode or "xn--...": httpx decodes what it can.
        """
        served = self._served.get((scheme, host if host.isascii() else _in_ascii(host), port))
        if served is not None and self._probes is None:
            self.start()
        return served

    def start(self) -> None:
        """Begin discovery and health checks now, rather than with the first call. May be repeated."""
        with self._lock:
            if self._probes is None:
                reported.watch(self._pools.values())
                self._discoveries = Discoveries(self._followers.values())
                self._probes = Probes(self._pools.values())  # last: `find` looks at it without the lock

    def status(self) -> Mapping[str, tuple[EndpointStatus, ...]]:
        """The endpoints of each pool as they are now."""
        found = {}
        for name, pool in self._pools.items():
            with pool.lock:
                found[name] = pool.snapshot()
        return found

    def discovery(self, pool: str) -> DiscoveryStatus | None:
        """Where the endpoints of `pool` come from, and how that goes; None: from the settings alone.

        Raises KeyError when there is no such pool.
        """
        follower = self._followers.get(self._pools[pool.lower()].name)
        return follower.status() if follower else None

    def drain(self, pool: str, endpoint: str, draining: bool | None = True) -> bool:
        """Send no new calls to `endpoint`, a URL or an address of `pool`, in this process; those under way go on.

        `draining=False` sends calls there again, None goes by the endpoint's settings. Returns False when it has no
        such endpoint. Raises KeyError when there is no such pool.
        """
        found = self._pools[pool.lower()]
        with found.lock:
            return found.drain(endpoint, draining)

    def explain(self, pool: str) -> tuple[Explained, ...]:
        """Each endpoint of `pool`: whether it gets calls now, how many, or why not. KeyError without such a pool."""
        found = self._pools[pool.lower()]
        with found.lock:
            return explain(found)

    @overload
    def on_error(self, handler: H, /, *, pool: str | None = None) -> H: ...
    @overload
    def on_error(self, handler: None = None, /, *, pool: str | None = None) -> Callable[[H], H]: ...
    def on_error(self, handler: Any = None, /, *, pool: str | None = None) -> Any:
        """Call `handler` with a CallFailed whenever a call over a pool, or over `pool`, failed for good; a decorator.

        A coroutine function is for async clients, which await it; calls of sync clients log that they can't. What a
        handler raises is logged. KeyError when there is no such pool.
        """
        if handler is None:
            return partial(self.on_error, pool=pool)
        name = None if pool is None else self._pools[pool.lower()].name
        self._handlers.append((name, handler))
        return handler

    def handlers(self, pool: str) -> list[Handler]:
        """Who is told about failed calls of `pool`, in the order in which they came."""
        return [handler for name, handler in self._handlers if name in (None, pool)]

    def client(self, **kwargs: Any) -> Client:
        """A client of the library that `client` in the settings names.

        `kwargs` are those of its Client. `transport` is the innermost hop; `verify`, `cert`, `http2`, `limits`, `proxy`
        and the like are the innermost hop's. Closing it is the caller's; `Pools.close` does it as well.
        """
        ours, theirs = _library(self.settings.client)
        kwargs.setdefault("cookies", Jar())
        inner = _inner(kwargs)
        transport = ours.PoolTransport(self, **inner)
        client: Client = theirs.Client(transport=transport, **self._proxied(transport, inner, kwargs))
        self._clients.add(client)
        return client

    def async_client(self, **kwargs: Any) -> AsyncClient:
        """The same for event loops. One client serves several loops; `aclose` it in each, or let the loops end.

        `wire="aiohttp"` is for this client what it is in the settings for all.
        """
        ours, theirs = _library(self.settings.client)
        kwargs.setdefault("cookies", Jar())
        inner = _inner(kwargs) | ({"wire": kwargs.pop("wire")} if "wire" in kwargs else {})
        transport = ours.AsyncPoolTransport(self, **inner)
        of_proxies = {**inner, "wire": "default"}  # the other one has none
        client: AsyncClient = theirs.AsyncClient(transport=transport, **self._proxied(transport, of_proxies, kwargs))
        return client

    def _proxied(self, transport: Any, inner: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """A client's arguments, with the environment's proxies for hosts that are no pool's."""
        if not kwargs.get("trust_env", True) or _WAYS & {name for name, value in inner.items() if value is not None}:
            return kwargs
        return {**kwargs, "mounts": {**mounts(self, transport, inner), **(kwargs.get("mounts") or {})}}

    def close(self) -> None:
        """End discovery, health checks and metrics, and close the clients of `client`.

        Not for good: the next call over these pools, by whatever client, or `start` begins them again. A source that
        hangs is not waited for. May be repeated.
        """
        with self._lock:
            probes, self._probes = self._probes, None
            discoveries, self._discoveries = self._discoveries, None
        if probes is not None:
            probes.close()
            reported.leave(self._pools.values())
        if discoveries is not None:
            discoveries.close()
        for client in list(self._clients):
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _origin(url: str) -> Origin:
    """As httpx has a URL's parts: without the default port."""
    parts = urlsplit(url)
    port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
    return parts.scheme, parts.hostname or "", port


@lru_cache(maxsize=1024)
def _in_ascii(host: str) -> str:
    """As it is sent, by the rules of the library that decoded it."""
    try:
        return URL(scheme="http", host=host).raw_host.decode("ascii")
    except InvalidURL:  # not a name that a pool could have
        return host


def _library(name: str) -> tuple[Any, Any]:
    """Our module for a client library, and the library itself: only the one that is used is imported."""
    try:
        return import_module(f".{name}", __package__), import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'client = "{name}" needs: pip install unsticky[{name}]', name=error.name) from error


def _inner(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take out of a client's arguments what belongs to its innermost hop."""
    return {name: kwargs.pop(name) for name in ("transport", *_OF_TRANSPORTS) if name in kwargs}
