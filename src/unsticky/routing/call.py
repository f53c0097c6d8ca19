"""The vocabulary between the flow, which decides, and the drivers, which send.

What is made anew for each call is not frozen, though nobody changes it: a frozen dataclass takes three times as long to
make, and these are a good part of what a call costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import FailedAttempt

if TYPE_CHECKING:
    from .endpoint import EndpointState
    from .rules import Preference

MAXIMUM_WEIGHT = 65535
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One interchangeable server of a pool. Its `url` is its identity: state follows it when the set is replaced."""

    url: str  # origin without a trailing slash: "http://10.0.0.1:8000"
    address: str  # "10.0.0.1:8000": what ring_hash hashes, spans and errors name
    weight: int = 1
    priority: int = 0
    locality: str | None = None
    draining: bool = False  # no new calls; those under way end in peace
    host: str | None = None  # what the Host header and TLS name, where it is not the url's own host

    @classmethod
    def of(
        cls,
        url: str,
        *,
        weight: int = 1,
        priority: int = 0,
        locality: str | None = None,
        draining: bool = False,
        host: str | None = None,
    ) -> Endpoint:
        """The endpoint at an origin such as "http://10.0.0.1:8000". Raises ValueError, with what is allowed.

        `host` is a name without a port, such as "catalog.internal", where `url` holds an address.
        """
        if not 1 <= weight <= MAXIMUM_WEIGHT:
            raise ValueError(f"expected a weight from 1 to {MAXIMUM_WEIGHT}, got {weight}")
        if priority < 0:
            raise ValueError(f"expected a priority of 0 or more, got {priority}")
        return cls(*_origin(url), weight, priority, locality, draining, host)


def _origin(url: str) -> tuple[str, str]:
    """("http://host:port" without the default port, "host:port" with it)."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in _PORTS or not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("expected an origin such as http://10.0.0.1:8000")
    if "@" in parts.netloc:  # not shown: it may be a password
        raise ValueError("expected an origin without user and password")
    host = f"[{host}]" if ":" in host else host
    port = parts.port if parts.port is not None else _PORTS[scheme]
    shown = "" if port == _PORTS[scheme] else f":{port}"
    return f"{scheme}://{host}{shown}", f"{host}:{port}"


def authority(url: str, host: str) -> str:
    """`host` with the port of an origin, where it has one: "catalog.internal:8000"."""
    port = url.rpartition(":")[2]
    return f"{host}:{port}" if port.isdecimal() else host


@dataclass(slots=True)
class Call:
    """What the flow must know of one call. `deadline` is monotonic seconds."""

    method: str
    replayable: bool = True  # False: the body can be sent once only
    key: int | None = None  # 64-bit hash of the call's hash key; None: it has none
    deadline: float | None = None  # of the whole call
    attempt_timeout: float | None = None  # seconds; None: as the pool's options say
    retry: bool = True  # False: one attempt only
    idempotent: bool | None = None  # may it be done twice? None: as its method says
    prefer: Preference | None = None  # what a rule said about it
    hedge: bool = True  # False: its body can't be on the way twice at the same time, or the caller wants no hedges
    buffer: int = 0  # bytes of the body to read before the answer counts as one


class Failure(Enum):
    """How an attempt ended without a usable response."""

    CONNECT = "connect"  # nothing was sent and the body is untouched: may be repeated whatever the method
    TIMEOUT = "timeout"  # no response headers in time
    BROKEN = "broken"  # the connection broke, or the answer was no HTTP
    CANCELLED = "cancelled"  # the caller went away: says nothing about the endpoint
    LOCAL = "local"  # the request itself can't be sent (bad header, unsupported protocol): never retried


@dataclass(slots=True, eq=False)
class Lease:
    """One endpoint's place for one attempt, until the body is closed. `release` and `body_failed` take no lock."""

    state: EndpointState
    generation: int  # the endpoint's era: what is seen of an earlier era is dropped
    _give_back: Callable[[Lease], None]  # appends to the pool's deque: a garbage collector may call it anywhere
    began: float = 0.0  # monotonic seconds
    released: bool = False
    settled: bool = False  # by the pool, under its lock: two threads may release at the same moment
    good: bool = False  # the response was fine up to its headers
    broken: bool = False  # its body was not

    def release(self) -> None:
        """Give the place back. Only the first call counts."""
        if not self.released:
            self.released = True
            self._give_back(self)

    def body_failed(self) -> None:
        """The response's body broke off: release, and count it against the endpoint."""
        if not self.released:
            self.broken = True
            self.release()


@dataclass(slots=True)
class Attempt:
    """One try on one endpoint."""

    endpoint: Endpoint
    resend_count: int  # 0 for the first
    deadline: float | None  # monotonic seconds: no response headers by then is a TIMEOUT
    lease: Lease
    hedge: bool = False  # another attempt was under way when this one began


@dataclass(slots=True)
class Send:
    """Start `attempt`. Ask the flow again after `wait` seconds, if nothing came by then of any attempt in flight."""

    attempt: Attempt
    wait: float = inf


@dataclass(slots=True)
class Wait:
    """Nothing to send for `seconds`, or until something comes of an attempt in flight."""

    seconds: float


@dataclass(slots=True)
class Outcome:
    """How an attempt ended: a status, or a failure with the exception behind it."""

    attempt: Attempt
    status: int | None = None
    headers: Mapping[str, str] | None = None  # of a failing status, by names in lower case
    failure: Failure | None = None
    error: BaseException | None = None
    response: object = None  # the driver's own; the flow never looks inside
    failed: tuple[FailedAttempt, ...] = ()  # of the last one, if it is no success: all attempts of the call


@dataclass(slots=True)
class Read:
    """Read the body of `outcome`'s response, up to `limit` bytes and until the attempt's deadline.

    The reply is the same outcome, also where there is more to read, or one that failed. Other attempts are given up.
    """

    outcome: Outcome
    limit: int
