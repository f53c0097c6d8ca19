"""The current inbound request, as outbound calls see it: one object in one ContextVar."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar


class RequestState:
    """What an outbound call may want to know of the inbound request that caused it.

    One object per request, set once and never reset: generators and background tasks that outlive the handler keep
    seeing it. This one knows nothing; each host has its own.
    """

    __slots__ = ()

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
