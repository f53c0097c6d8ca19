"""Where a call's hash key comes from: the outbound request, and the inbound one that caused it."""

from __future__ import annotations

from typing import Any

from ..context import current
from ..routing.hashing import HashKey, call_key


class HashedRequest:
    """A HashSource over a request of httpx or httpx2."""

    __slots__ = ("_request",)

    def __init__(self, request: Any) -> None:
        self._request = request

    def key(self, keys: tuple[HashKey, ...]) -> int | None:
        return call_key(keys, self)

    def path(self) -> str | None:
        target: bytes = self._request.url.raw_path
        return target.partition(b"?")[0].decode("ascii")

    def query(self, name: str) -> str | None:
        value: str | None = self._request.url.params.get(name)
        return value

    def header(self, name: str) -> str | None:
        values: list[str] = self._request.headers.get_list(name)
        return ",".join(values) if values else None

    def cookie(self, name: str) -> str | None:
        inbound = current.get()
        return None if inbound is None else inbound.cookies.get(name)

    def inbound_header(self, name: str) -> str | None:
        inbound = current.get()
        return None if inbound is None else inbound.header(name)

    def session(self) -> str | None:
        inbound = current.get()
        return None if inbound is None else inbound.session_key()
