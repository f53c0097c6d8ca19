"""The current inbound request, as outbound calls see it: one object in one ContextVar."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Deadline:
    """When whoever sent the current request gives up waiting for its response, if that is known."""

    __slots__ = ("_monotonic", "at")

    def __init__(self, at: float | None, monotonic: Callable[[], float]) -> None:
        """`at`: seconds of the clock `monotonic`; None: never."""
        self.at = at
        self._monotonic = monotonic

    def remaining(self) -> float | None:
        """Seconds that are left; 0.0 once it has passed; None when the request has no deadline."""
        return None if self.at is None else max(0.0, self.at - self._monotonic())


NO_DEADLINE = Deadline(None, lambda: 0.0)


class Client(Protocol):
    """Who sent the current request, where the server tells when they go away."""

    gone: bool

    async def while_there(self, call: Coroutine[Any, Any, T], gone: Callable[[], Exception]) -> T:
        """Await `call`; when the client goes away first, cancel it, and raise what `gone` makes."""
        ...

    def end(self) -> None:
        """The response is complete: to go away means nothing any more."""
        ...


class Arrival:
    """How a request came: its deadline, the attempts before it, and whether anybody still waits. One per request."""

    __slots__ = ("client", "deadline", "latest", "over", "previous_attempts", "spares_retries")

    def __init__(self) -> None:
        self.deadline: Deadline | None = None
        self.latest: float | None = None  # monotonic seconds, when answers to outbound calls must be there
        self.previous_attempts = 0  # 0: this is no retry
        self.spares_retries = False  # outbound calls are not retried, but where nothing was sent
        self.client: Client | None = None  # None: nobody would tell us
        self.over = False  # the response is complete: what still runs is nobody's to wait for

    def end(self) -> None:
        """The response is complete, or there will be none."""
        self.over = True
        if self.client is not None:
            self.client.end()


class RequestState:
    """What an outbound call may want to know of the inbound request that caused it.

    One object per request, set once and never reset: generators and background tasks that outlive the handler keep
    seeing it. This one knows nothing; each host has its own.
    """

    __slots__ = ()

    arrival: Arrival | None = None

    @property
    def cookies(self) -> Mapping[str, str]:
        """By name; of duplicates the first."""
        return {}

    def header(self, name: str) -> str | None:
        """An inbound header by its name, in any case."""
        return None

    def session_key(self) -> str | None:
        """The session's store key: a hash, never the token."""
        return None


current: ContextVar[RequestState | None] = ContextVar("unsticky_request", default=None)


def current_arrival() -> Arrival | None:
    """Of the request that is being served here; None outside of one, and once its response is complete."""
    state = current.get()
    arrival = None if state is None else state.arrival
    return None if arrival is None or arrival.over else arrival


def current_deadline() -> Deadline:
    """Of the request that is being served here; NO_DEADLINE where it has none, and outside of one."""
    return deadline_of(current_arrival())


def deadline_of(arrival: Arrival | None) -> Deadline:
    """For programs, which need not ask first whether there is one."""
    return NO_DEADLINE if arrival is None or arrival.deadline is None else arrival.deadline
