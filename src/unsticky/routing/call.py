"""The vocabulary between the flow, which decides, and the drivers, which send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One interchangeable server of a pool. Equal endpoints keep their state when the set is replaced."""

    url: str  # origin without a trailing slash: "http://10.0.0.1:8000"
    address: str  # "10.0.0.1:8000": what ring_hash hashes, spans and errors name
    weight: int = 1
    priority: int = 0
    locality: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What the flow must know of one call. `deadline` is monotonic seconds."""

    method: str
    replayable: bool = True  # False: the body can be sent once only
    key: int | None = None  # 64-bit hash of the call's hash key; None: it has none
    deadline: float | None = None  # of the whole call
    attempt_timeout: float | None = None  # seconds; None: as the pool's options say
    retry: bool = True  # False: one attempt only


class Failure(Enum):
    """How an attempt ended without a usable response."""

    CONNECT = "connect"  # nothing was sent: may be repeated whatever the method
    TIMEOUT = "timeout"  # no response headers in time
    BROKEN = "broken"  # the connection broke, or the answer was no HTTP
    CANCELLED = "cancelled"  # the caller went away: says nothing about the endpoint
    LOCAL = "local"  # the request itself can't be sent (bad header, unsupported protocol): never retried


@dataclass(slots=True, eq=False)
class Lease:
    """One endpoint's place for one attempt, until the body is closed. `release` and `body_failed` take no lock."""

    _give_back: Callable[[Lease], None]  # appends to the pool's deque: a garbage collector may call it anywhere
    _body_failed: Callable[[Lease], None]
    generation: int  # the endpoint's era: outcomes of an earlier era are dropped
    released: bool = False

    def release(self) -> None:
        """Give the place back. Only the first call counts."""
        if not self.released:
            self.released = True
            self._give_back(self)

    def body_failed(self) -> None:
        """The response's body broke off: a second observation, after the one at the headers."""
        self._body_failed(self)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try on one endpoint."""

    endpoint: Endpoint
    resend_count: int  # 0 for the first
    deadline: float | None  # monotonic seconds: no response headers by then is a TIMEOUT
    lease: Lease


@dataclass(frozen=True, slots=True)
class Send:
    """Start `attempt`. Ask the flow again after `wait` seconds, if nothing came by then."""

    attempt: Attempt
    wait: float = inf


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to send for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: a status, or a failure with the exception behind it."""

    attempt: Attempt
    status: int | None = None
    retry_after: str | None = None  # the header as received
    failure: Failure | None = None
    error: BaseException | None = None
    response: object = None  # the driver's own; the flow never looks inside
