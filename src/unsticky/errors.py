"""All errors of unsticky.

    UnstickyError
    ├── CheckError                `unsticky check` can not be done: no such app, or it does not start
    │   └── ScriptError           its requests are wrong
    ├── SettingsError             settings are wrong; every problem of the source is listed
    ├── LocalStateRefused         the guard refused what would stay in this replica (also a PermissionError)
    ├── DiscoveryError            where a pool's endpoints come from could not tell them
    ├── StoreError                a session store could not answer (never: "not found")
    │   └── DamagedRecord         it answered, with a record that can't be read
    ├── SessionError
    │   ├── SessionConflict       a transaction was overtaken again and again
    │   ├── SessionLimitReached   the owner has as many sessions as `maximum_sessions` allows
    │   ├── SessionNotLoaded      `lazy` is set, and the session was used before `await session.load()`
    │   ├── SessionUnavailable    the session is needed and its store is away; answered with 503
    │   ├── SessionValueError     a value or key can't be stored (also a TypeError)
    │   └── SessionHeadersSent    a session would have to be created or rotated after the headers were sent
    └── RoutingError              a call over a pool failed; `.pool`, `.attempts`
        ├── NoHealthyEndpoint     nothing was sent: no endpoint may be used now
        ├── PoolOverflow          nothing was sent: as many calls are in flight as `limits` allow
        ├── AttemptsFailed        every attempt failed; `.attempts` says how each
        ├── ClientDisconnected    who sent the current request is gone, so its outbound calls were cancelled
        └── CallTimeout           the pool's timeout for the whole call passed
            └── DeadlineExceeded  it was the current request's deadline that passed; uncaught, answered with 504

The transport modules (`unsticky.httpx`, `unsticky.httpx2`, `unsticky.requests`) raise subclasses of the routing errors
that are also their library's `TransportError`, `ConnectError` or `TimeoutException`, or of requests a `ConnectionError`
or `Timeout`: existing `except` clauses keep working.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class UnstickyError(Exception):
    """Anything that unsticky raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a settings source: `path` says where, `message` what is allowed."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class CheckError(UnstickyError):
    """`unsticky check` can not be done: the app can not be imported or started. The message says why."""


class ScriptError(CheckError):
    """The requests of `unsticky check` are wrong; the message names the place and what is expected."""


class SettingsError(UnstickyError):
    """Settings are wrong. `problems` holds all that was found in `source`, not only the first."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {len(self.problems)} problem{'s'[: len(self.problems) != 1]}\n{lines}")


class DiscoveryError(UnstickyError):
    """A pool's endpoints could not be told. The message is for logs and users: it holds no secret.

    A discovery of your own may raise it to say why; of any other exception only the type is told.
    """


class LocalStateRefused(UnstickyError, PermissionError):
    """`guard = "enforce"` refused a write that no other replica would see. Nothing was written.

    The message says what to use instead, and how to declare what is local on purpose.
    """


class StoreError(UnstickyError):
    """A session store could not answer: down, too slow, or it answered nonsense. Its message holds no secret."""


class DamagedRecord(StoreError):
    """The store answered, but the record can't be read: it was damaged, or is not ours. The store itself is well."""


class SessionError(UnstickyError):
    """Something about the current request's session."""


class SessionConflict(SessionError):
    """Others kept changing what a transaction had read, so it was given up. Nothing of it was written."""


class SessionLimitReached(SessionError):
    """The owner has as many sessions as `maximum_sessions` allows, and `at_limit = "refuse"`. Nothing was written."""


class SessionNotLoaded(SessionError):
    """With `lazy = true` a session is loaded by `await request.session.load()`; it was used before that."""


class SessionUnavailable(SessionError):
    """The session is needed, and its store did not answer. `retry_after` is in seconds."""

    def __init__(self, message: str = "The session store is not available.", *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SessionValueError(SessionError, TypeError):
    """A key or value that a session can't hold; the message names its path."""


class SessionHeadersSent(SessionError):
    """The response's headers are sent, so no cookie can be set any more."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt of a call that failed. Nothing in it is of the request."""

    endpoint: str  # its address: "10.0.0.1:8000"
    reason: str  # in words, with the endpoint's state if it was not fit: "could not connect (ConnectError)"
    status: int | None = None  # of its response, if it had one
    failure: str | None = None  # else "connect", "timeout", "broken", "cancelled" or "local"
    error: str | None = None  # the name of the exception's type
    seconds: float = 0.0  # from the pick up to the headers, or to the failure
    resend_count: int = 0  # 0 for the first attempt

    def __str__(self) -> str:
        return f"{self.endpoint}: {self.reason}"


class RoutingError(UnstickyError):
    """A call over a pool failed. `attempts` are all that were made; `str()` of one is a line for people."""

    def __init__(self, message: str, *, pool: str, attempts: Sequence[FailedAttempt] = ()) -> None:
        super().__init__(message)
        self.pool = pool
        self.attempts = tuple(attempts)

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies, also those that go to another process: the default would leave `pool` out of the call."""
        return _restored, (type(self), str(self), self.pool, self.attempts), self.__dict__.copy()


def _restored(kind: type[RoutingError], message: str, pool: str, attempts: Sequence[FailedAttempt]) -> RoutingError:
    return kind(message, pool=pool, attempts=attempts)


class NoHealthyEndpoint(RoutingError):
    """No endpoint of the pool may be used now, so nothing was sent."""


class PoolOverflow(RoutingError):
    """As many calls of the pool are in flight as its limits allow, so this one was not sent."""


class AttemptsFailed(RoutingError):
    """Every attempt failed without a response."""


class CallTimeout(RoutingError):
    """The pool's timeout for the whole call passed."""


class DeadlineExceeded(CallTimeout):
    """The deadline of the request that is being served passed, or left the call no time."""


class ClientDisconnected(RoutingError):
    """Who sent the request that is being served went away, so the call was cancelled."""
