"""The current inbound request, as outbound calls see it: one object in one ContextVar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field


def _nothing() -> str | None:
    return None


@dataclass(slots=True)
class RequestState:
    """What an outbound call may want to know of the inbound request that caused it.

    One mutable object per request, set once and never reset: generators and background tasks that outlive the
    handler keep seeing it.
    """

    cookies: Mapping[str, str] = field(default_factory=dict)
    header: Callable[[str], str | None] = lambda name: None  # inbound header by lower-case name
    session_key: Callable[[], str | None] = _nothing  # the session's store key: a hash, never the token


current: ContextVar[RequestState | None] = ContextVar("unsticky_request", default=None)
